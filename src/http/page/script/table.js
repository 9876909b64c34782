// The table of latest rates: changed cells are replaced and marked. The reader can sort, filter and expand it.

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

// Removes what this script has written into a cell, so that two cells are equal if the server sent the same markup.
const pristine = (cell) => {
  const copy = cell.cloneNode(true);
  copy.classList.remove("changed");
  if (!copy.className) copy.removeAttribute("class");
  for (const age of copy.querySelectorAll(".age")) age.textContent = "";
  for (const state of copy.querySelectorAll(".state[data-known]")) {
    state.textContent = state.dataset.known;
    delete state.dataset.known;
    state.classList.remove("unknown");
  }
  for (const details of copy.querySelectorAll("details")) details.open = false;
  return copy;
};

// Replaces the cells of a row that differ, and marks those whose text differs. Other cells keep the focus, and whether
// they are expanded.
const updateRow = (old, row) => {
  const cells = [...row.children];
  const isSeries = row.id.startsWith("r-");
  if (isSeries) announceChanges(old, row);
  old.className = row.className;
  if (old.children.length !== cells.length) return old.replaceWith(row);
  cells.forEach((cell, at) => {
    const before = old.children[at];
    if (pristine(before).isEqualNode(pristine(cell))) return;
    const isMarked = textOf(before) !== textOf(cell);
    const open = before.querySelector("details")?.open;
    const focused = before.contains(document.activeElement) ? document.activeElement.localName : null;
    before.replaceWith(cell);
    if (open) cell.querySelector("details").open = true;
    if (focused) cell.querySelector(focused)?.focus();
    if (!isMarked) return;
    cell.classList.add("changed");
    setTimeout(() => cell.classList.remove("changed"), MARK_MS);
  });
};

// --- what the reader has chosen -------------------------------------------------------------------------------------

// The expanded groups and sections, the order and the filter. A reload keeps them.
const STORED = "silkrate table";
const choices = { open: {}, filter: "", column: 0, descending: false };
try {
  Object.assign(choices, JSON.parse(sessionStorage.getItem(STORED)));
} catch {
  // Storage is off, or has something else.
}
const keepChoices = () => {
  try {
    sessionStorage.setItem(STORED, JSON.stringify(choices));
  } catch {
    // The choices last until the page is closed.
  }
};

const pairTables = () => [...document.querySelectorAll("table.pairs")];
const headings = () => [...(document.querySelector("table.pairs thead tr")?.children ?? [])];
const isSortable = (heading) => !heading.classList.contains("picture");

// The name under which the state of a group or a section is kept.
const nameOf = (details) => details.closest("tr")?.id ?? details.id;
const allDetails = () => document.querySelectorAll("#rates details");

const applyOpen = () => {
  for (const details of allDetails()) {
    const open = choices.open[nameOf(details)];
    if (open !== undefined) details.open = open;
  }
};

const compare = (one, other) => {
  const [a, b] = [one, other].map((group) => group.rows[0].children[choices.column]?.dataset.sort);
  // Groups without a value come last in both orders.
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const order = choices.column === 0 ? a.localeCompare(b) : Number(a) - Number(b);
  return choices.descending ? -order : order;
};

const applyOrder = () => {
  for (const table of pairTables()) {
    const groups = [...table.tBodies];
    const sorted = [...groups].sort((one, other) => compare(one, other) || one.rows[0].id.localeCompare(other.rows[0].id));
    // Moving a group would take the focus away from it.
    if (sorted.some((group, at) => group !== groups[at])) {
      const focused = document.activeElement;
      table.append(...sorted);
      if (table.contains(focused)) focused.focus();
    }
    [...table.tHead.rows[0].children].forEach((heading, at) => {
      if (!isSortable(heading)) return;
      const order = choices.descending ? "descending" : "ascending";
      heading.ariaSort = at === choices.column ? order : "none";
    });
  }
  const select = byId("order");
  if (select) select.value = `${choices.column} ${choices.descending}`;
};

const applyFilter = () => {
  const words = choices.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const openFor = (details, isWanted) => {
    if (!details || details.open === isWanted || (!isWanted && !details.dataset.filtered)) return;
    details.open = isWanted;
    if (isWanted) details.dataset.filtered = "yes";
    else delete details.dataset.filtered;
  };
  const matches = (text) => words.every((word) => text.includes(word));
  let [shown, all] = [0, 0];
  const show = (element, text) => {
    element.hidden = !matches(text);
    all += 1;
    shown += element.hidden ? 0 : 1;
    return !element.hidden;
  };
  for (const section of ["usd", "other"]) {
    const groups = [...(byId(section)?.tBodies ?? [])];
    const found = groups.filter((group) => show(group, group.dataset.find)).length;
    if (section === "other") openFor(byId("others"), Boolean(words.length && found));
  }
  const old = [...document.querySelectorAll("#old tbody tr")];
  const foundOld = old.filter((row) => show(row, textOf(row).toLowerCase())).length;
  openFor(byId("old"), Boolean(words.length && foundOld));
  byId("found").textContent = words.length ? `${shown} of ${all}` : "";
  byId("filter").value = choices.filter;
};

const sortBy = (column) => {
  // Numbers are sorted from the largest first.
  choices.descending = column === choices.column ? !choices.descending : column > 1 && column !== 3;
  choices.column = column;
  keepChoices();
  applyOrder();
};

// Turns the headings into buttons. Without this script, the headings are text.
const addButtons = () => {
  // The headings of the first table are visible.
  for (const table of pairTables().slice(0, 1)) {
    [...table.tHead.rows[0].children].forEach((heading, at) => {
      if (!isSortable(heading) || heading.querySelector("button")) return;
      const button = document.createElement("button");
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sortBy(at));
      heading.replaceChildren(button);
    });
  }
};

const applyChoices = () => {
  addButtons();
  applyOpen();
  applyOrder();
  applyFilter();
};

const startTable = () => {
  if (!byId("tools")) return;
  byId("tools").hidden = false;
  const select = byId("order");
  headings().forEach((heading, at) => {
    if (!isSortable(heading)) return;
    for (const descending of [false, true]) {
      const option = document.createElement("option");
      option.value = `${at} ${descending}`;
      option.textContent = `${heading.textContent}, ${descending ? "descending" : "ascending"}`;
      select.append(option);
    }
  });
  select.addEventListener("change", () => {
    const [column, descending] = select.value.split(" ");
    Object.assign(choices, { column: Number(column), descending: descending === "true" });
    keepChoices();
    applyOrder();
  });
  byId("filter").addEventListener("input", (event) => {
    choices.filter = event.target.value;
    keepChoices();
    applyFilter();
  });
  // A click, also one by the keyboard, precedes the change. The filter opens sections without a click.
  document.addEventListener("click", (click) => {
    const details = click.target.closest?.("#rates summary")?.parentElement;
    if (!details) return;
    choices.open[nameOf(details)] = !details.open;
    keepChoices();
  });
  applyChoices();
};

// --- updates --------------------------------------------------------------------------------------------------------

const applySections = (html) => {
  const fresh = parse(html);
  const old = byId("rates");
  if (old.dataset.frame === fresh.dataset.frame) {
    for (const row of fresh.querySelectorAll("tr[id]")) updateRow(byId(row.id), row);
    return;
  }
  const focused = document.activeElement?.closest?.("#rates [id]")?.id;
  const kind = document.activeElement?.localName;
  // Rows that stay are updated, so that only their changed cells are marked.
  const kept = new Map([...old.querySelectorAll("tr[id]")].map((row) => [row.id, row]));
  old.replaceWith(fresh);
  for (const row of fresh.querySelectorAll("tr[id]")) {
    const before = kept.get(row.id);
    if (!before) continue;
    row.replaceWith(before);
    updateRow(before, row);
  }
  applyChoices();
  if (focused) byId(focused)?.querySelector(kind)?.focus();
};

const applyUpdate = ({ head, sections, rows, all }) => {
  const series = byId("chart")?.dataset.rows?.split(" ") ?? [];
  if (byId("chart") && (all || rows.some(([id]) => series.includes(id)))) refreshChart();
  if (!byId("rates")) return;
  byId("head").innerHTML = head;
  if (all) applySections(sections);
  for (const [id, html] of rows) {
    const old = byId(id);
    if (old) updateRow(old, parse(html));
  }
  if (rows.length || all) {
    applyOrder();
    if (choices.filter) applyFilter();
  }
};
