// The table of latest rates: changed rows are replaced, and only their changed cells are marked.

const MARK_MS = 2500; // time for which a changed cell is marked
const ANNOUNCE_MS = 4000; // time between two announcements for screen readers

const parse = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
};

const textOf = (cell) => {
  const copy = cell.cloneNode(true);
  for (const age of copy.querySelectorAll(".age")) age.remove();
  return copy.textContent.trim();
};

const part = (row, selector) => row.querySelector(selector)?.textContent ?? "";

// Announcements for screen readers: the newest rate and state of each series, at most once every ANNOUNCE_MS.
const announcements = new Map();
let announceTimer = 0;
const announce = (name, fresh) => {
  announcements.set(name, { ...announcements.get(name), ...fresh });
  announceTimer ||= setTimeout(() => {
    const sentences = [...announcements].map(
      ([name, { rate, state }]) => `${name} ${[rate, state].filter(Boolean).join(", ")}`,
    );
    const { size } = announcements;
    byId("announce").textContent = size > 3 ? `${size} rates changed` : sentences.join(". ");
    announcements.clear();
    announceTimer = 0;
  }, ANNOUNCE_MS);
};

const announceChanges = (old, row) => {
  const name = `${part(row, "th a")} from ${part(row, "th .sub")}`;
  const [was, is] = [part(old, ".rate"), part(row, ".rate")];
  if (was !== is) announce(name, { rate: `is ${is}, was ${was}` });
  const [before, after] = [part(old, ".state"), part(row, ".state")];
  if (before !== after) announce(name, { state: `is now ${after}` });
};

const replaceRow = (old, row) => {
  const hadFocus = old.contains(document.activeElement);
  const cells = [...row.children].filter((cell, at) => old.children[at] && textOf(old.children[at]) !== textOf(cell));
  for (const cell of cells) cell.classList.add("changed");
  setTimeout(() => cells.forEach((cell) => cell.classList.remove("changed")), MARK_MS);
  announceChanges(old, row);
  old.replaceWith(row);
  if (hadFocus) row.querySelector("a")?.focus();
};

const applyUpdate = ({ head, rows, all }) => {
  const chart = byId("chart");
  if (chart && rows.some(([id]) => id === chart.dataset.row)) refreshChart();
  const body = byId("rows");
  if (!body) return;
  byId("head").innerHTML = head;
  if (all) {
    const ids = new Set(rows.map(([id]) => id));
    for (const row of [...body.children]) if (!ids.has(row.id)) row.remove();
  }
  rows.forEach(([id, html], at) => {
    const row = parse(html);
    const old = byId(id);
    if (old) replaceRow(old, row);
    else body.insertBefore(row, body.children[at] ?? null);
  });
  if (all) body.append(...rows.map(([id]) => byId(id)));
};

