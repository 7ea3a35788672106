// Login, launcher and message pages: conveniences on top of pages that work without them.

import { furnish } from './furniture.js';
import { foundText, matches, stepFrom } from './search.js';

furnish();
const tiles = document.getElementById('tiles');
if (tiles !== null) {
  furnishLauncher(tiles);
}

function furnishLauncher(list: HTMLElement): void {
  const items = [...list.querySelectorAll<HTMLLIElement>(':scope > li')];
  const links = items.map((item) => item.querySelector<HTMLAnchorElement>('a.tile'));
  const search = document.getElementById('search');
  const noneFound = document.getElementById('none-found');
  const found = document.getElementById('found');
  const shown = () => links.filter((link, index) => !items[index]?.hidden && link !== null) as HTMLAnchorElement[];

  list.addEventListener('keydown', (event) => {
    const now = shown();
    const index = now.findIndex((link) => link === document.activeElement);
    const step = index < 0 ? undefined : stepFrom(index, event.key, now.length, columnsOf(now));
    if (step !== undefined) {
      event.preventDefault();
      now[step]?.focus();
    } else if (event.key === 'ArrowUp' && index >= 0) {
      event.preventDefault();
      search?.focus();
    }
  });

  if (!(search instanceof HTMLInputElement) || noneFound === null || found === null) {
    return;
  }
  const filter = () => {
    items.forEach((item, index) => {
      const link = links[index];
      const title = link?.querySelector('.tile-title')?.textContent ?? '';
      item.hidden = !matches(search.value, title, link?.dataset['name'] ?? '');
    });
    const count = shown().length;
    list.hidden = count === 0;
    noneFound.hidden = count !== 0;
    found.textContent = search.value.trim() === '' ? '' : foundText(count);
  };
  const clear = () => {
    search.value = '';
    filter();
    search.focus();
  };
  search.addEventListener('input', filter);
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') {
      event.preventDefault();
      // Without a search there is no first match to mean.
      if (search.value.trim() !== '') {
        shown()[0]?.click();
      }
    } else if (event.key === 'ArrowDown') {
      event.preventDefault();
      shown()[0]?.focus();
    } else if (event.key === 'Escape' && search.value !== '') {
      event.preventDefault();
      clear();
    }
  });
  document.getElementById('clear-search')?.addEventListener('click', clear);
  document.addEventListener('keydown', (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });
  search.closest<HTMLElement>('.search')?.removeAttribute('hidden');
  // A page out of the back-forward cache or a reload may bring its old text along.
  filter();
}

/** How many tiles stand in the first row. */
function columnsOf(links: HTMLAnchorElement[]): number {
  const top = links[0]?.getBoundingClientRect().top;
  const columns = links.findIndex((link) => link.getBoundingClientRect().top !== top);
  return columns < 0 ? links.length : columns;
}
