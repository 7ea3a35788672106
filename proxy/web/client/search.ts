// Which tiles a search finds, and where arrow keys lead. No DOM.

/** Every word of the query must occur in the title or the name; letter case and accents do not matter. */
export function matches(query: string, title: string, name: string): boolean {
  const text = folded(`${title} ${name}`);
  return folded(query)
    .split(/\s+/)
    .every((word) => text.includes(word));
}

function folded(text: string): string {
  return text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().trim();
}

/** The tile that an arrow, Home or End key leads to from `index`, among `count` tiles in `columns`. */
export function stepFrom(index: number, key: string, count: number, columns: number): number | undefined {
  const target = {
    ArrowRight: index + 1,
    ArrowLeft: index - 1,
    ArrowDown: index + columns,
    ArrowUp: index - columns,
    Home: 0,
    End: count - 1,
  }[key];
  return target === undefined || target < 0 || target >= count ? undefined : target;
}

export function foundText(count: number): string {
  return count === 0 ? 'Nothing matches' : count === 1 ? 'One desktop matches' : `${count} desktops match`;
}
