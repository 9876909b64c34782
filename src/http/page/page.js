// Keeps a page live: rows as they change, ages as they grow, a chart without a reload. All of it comes from this server,
// and without it the page says the same, as of when it was loaded.
"use strict";
(() => {
  const LOST_AFTER_MS = 6000; // thrice the server's beat
  const RETRY_MAX_MS = 10000;
  const MARK_MS = 2500;
  const ANNOUNCE_MS = 4000;
  const CHART_PAUSE_MS = 1000;
  const CHART_AGE_MS = 30000;

  const byId = (id) => document.getElementById(id);
  const serverClock = { ahead: 0 };
  const now = () => Date.now() + serverClock.ahead;
  const clockText = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

  // --- ages ---------------------------------------------------------------------------------------------------------

  const ageText = (ms) => {
    const seconds = Math.floor(ms / 1000);
    if (seconds < 0) return "dated ahead";
    if (seconds < 60) return `${seconds} s ago`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${seconds % 60} s ago`;
    const hours = Math.floor(minutes / 60);
    if (hours < 24) return `${hours} h ${minutes % 60} min ago`;
    const days = Math.floor(hours / 24);
    return days < 7 ? `${days} d ${hours % 24} h ago` : `${days} d ago`;
  };

  const tickAges = () => {
    for (const age of document.querySelectorAll(".age")) {
      const text = ageText(now() - Number(age.dataset.since));
      if (age.textContent !== text) age.textContent = text;
    }
    const quiet = byId("quiet");
    if (quiet) {
      const since = Number(quiet.querySelector(".age").dataset.since);
      quiet.hidden = now() - since <= Number(quiet.dataset.after);
    }
  };

  // --- the connection -----------------------------------------------------------------------------------------------

  let source = null;
  let heardAt = performance.now();
  let retryMs = 1000;
  let retryTimer = 0;

  // While the connection is lost nobody knows what a series does: what was known would look like news.
  const showStates = (known) => {
    for (const state of document.querySelectorAll(".state")) {
      if (!known) state.dataset.known ??= state.textContent;
      state.textContent = known ? (state.dataset.known ?? state.textContent) : "Unknown";
      if (known) delete state.dataset.known;
      state.classList.toggle("unknown", !known);
    }
  };

  const showLink = (state) => {
    if (document.body.dataset.link === state) return;
    document.body.dataset.link = state;
    showStates(state !== "lost");
    byId("link").textContent = {
      wait: "Connecting",
      live: "Live",
      lost: `Connection lost at ${clockText(now())} UTC. What you see is from before; trying again.`,
    }[state];
  };

  const heard = (message) => {
    const data = JSON.parse(message.data);
    if (data.now) serverClock.ahead = data.now - Date.now();
    heardAt = performance.now();
    retryMs = 1000;
    showLink("live");
    return data;
  };

  const connect = () => {
    retryTimer = 0;
    source?.close();
    heardAt = performance.now();
    source = new EventSource("/live");
    source.addEventListener("hello", (message) => {
      const { script } = heard(message);
      // Another version serves by now: its rows want its own style and script.
      if (!document.querySelector("script").src.endsWith(script)) location.reload();
    });
    source.addEventListener("latest", (message) => {
      takeLatest(heard(message));
      tickAges();
    });
    source.addEventListener("beat", heard);
    source.onerror = () => lost();
  };

  // A server that refuses, or is gone, is asked again by us: a browser gives up on some answers.
  const lost = () => {
    showLink("lost");
    if (retryTimer) return;
    source.close();
    retryTimer = setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 1.5, RETRY_MAX_MS);
  };

  // --- the table ----------------------------------------------------------------------------------------------------

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

  // What is read out: of each series its newest rate and its newest state, not oftener than can be listened to.
  const news = new Map();
  let announceTimer = 0;
  const announce = (name, fresh) => {
    news.set(name, { ...news.get(name), ...fresh });
    announceTimer ||= setTimeout(() => {
      const sentences = [...news].map(([name, { rate, state }]) => `${name} ${[rate, state].filter(Boolean).join(", ")}`);
      byId("announce").textContent = news.size > 3 ? `${news.size} rates changed` : sentences.join(". ");
      news.clear();
      announceTimer = 0;
    }, ANNOUNCE_MS);
  };

  const tell = (old, row) => {
    const name = `${part(row, "th a")} from ${part(row, "th .sub")}`;
    const [was, is] = [part(old, ".rate"), part(row, ".rate")];
    if (was !== is) announce(name, { rate: `is ${is}, was ${was}` });
    const [before, after] = [part(old, ".state"), part(row, ".state")];
    if (before !== after) announce(name, { state: `is now called ${after}` });
  };

  const replaceRow = (old, row) => {
    const hadFocus = old.contains(document.activeElement);
    const cells = [...row.children].filter((cell, at) => old.children[at] && textOf(old.children[at]) !== textOf(cell));
    for (const cell of cells) cell.classList.add("changed");
    setTimeout(() => cells.forEach((cell) => cell.classList.remove("changed")), MARK_MS);
    tell(old, row);
    old.replaceWith(row);
    if (hadFocus) row.querySelector("a")?.focus();
  };

  const takeLatest = ({ head, rows, all }) => {
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
  };

  // --- the chart ----------------------------------------------------------------------------------------------------

  let swapping = null;
  let chartAt = performance.now();
  let chartTimer = 0;

  // Puts the chart of an address in place of the one that is shown; keyboard focus stays on the same control.
  const swap = async (address, focusOn) => {
    swapping?.abort();
    const mine = (swapping = new AbortController());
    try {
      const response = await fetch(address, { signal: mine.signal });
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const chart = fresh.getElementById("chart");
      if (!chart) return false;
      const old = byId("chart");
      const focused = focusOn ?? (old.contains(document.activeElement) ? labelOf(document.activeElement) : null);
      const open = byId("numbers")?.open;
      document.title = fresh.title;
      old.replaceWith(chart);
      if (open) byId("numbers").open = true;
      if (focused) [...chart.querySelectorAll("a, summary")].find((link) => labelOf(link) === focused)?.focus();
      chartAt = performance.now();
      tickAges();
      return true;
    } catch {
      return mine.signal.aborted; // cut off: the connection says so, and the chart stays as it was
    } finally {
      if (swapping === mine) swapping = null;
    }
  };

  const labelOf = (control) => `${control.parentElement.getAttribute("aria-label")} ${control.textContent}`;

  const refreshChart = () => {
    if (chartTimer) return;
    const wait = Math.max(0, CHART_PAUSE_MS - (performance.now() - chartAt));
    chartTimer = setTimeout(() => {
      chartTimer = 0;
      // A choice just made by hand goes first, and is as fresh.
      if (!swapping) swap(location.href);
    }, wait);
  };

  document.addEventListener("click", async (click) => {
    const link = click.target.closest?.("a[data-swap]");
    if (!link || click.button !== 0 || click.metaKey || click.ctrlKey || click.shiftKey || click.altKey) return;
    click.preventDefault();
    if (await swap(link.href, labelOf(link))) {
      if (link.href !== location.href) history.pushState(null, "", link.href);
    } else location.assign(link.href);
  });
  addEventListener("popstate", async () => {
    if (byId("chart") && !(await swap(location.href))) location.reload();
  });

  // --- the course of time -------------------------------------------------------------------------------------------

  setInterval(() => {
    tickAges();
    if (performance.now() - heardAt > LOST_AFTER_MS) lost();
    if (byId("chart") && document.body.dataset.link === "live" && performance.now() - chartAt > CHART_AGE_MS) refreshChart();
  }, 1000);
  // A page that comes back from sleep, or from the browser's own cache, has heard nothing for long.
  addEventListener("pageshow", (shown) => shown.persisted && !retryTimer && connect());

  const drawn = document.querySelector("[data-now]");
  if (drawn) serverClock.ahead = Number(drawn.dataset.now) - Date.now();
  showLink("wait");
  tickAges();
  connect();
})();
