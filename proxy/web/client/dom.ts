// Elements of the templates, by id.

/** The element with this id; the templates and this script are built together, so it is there. */
export function byId<T extends Element = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) {
    throw new Error(`the page lacks #${id}`);
  }
  return element as unknown as T;
}

export function show(element: HTMLElement, visible: boolean): void {
  element.hidden = !visible;
}

/** Says it to screen readers; clearing first makes a repeated text heard again. */
export function announce(text: string): void {
  const region = byId('announce');
  region.textContent = '';
  setTimeout(() => {
    region.textContent = text;
  }, 50);
}
