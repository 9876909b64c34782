// Keeps a page up to date without a reload: changed rows, ages, and the chart. All data comes from this server. Without
// this script, the page shows the same data, as of the time when it was loaded.
"use strict";
(() => {
  const LOST_AFTER_MS = 6000; // three heartbeats of the server
  const RETRY_MAX_MS = 10000; // maximum wait before a reconnect
  const MARK_MS = 2500; // time for which a changed cell is marked
  const ANNOUNCE_MS = 4000; // time between two announcements for screen readers
  const CHART_PAUSE_MS = 1000; // minimum time between two refreshes of the chart
  const CHART_AGE_MS = 30000; // age at which the chart is refreshed

  const byId = (id) => document.getElementById(id);
  const serverClock = { ahead: 0 };
  const now = () => Date.now() + serverClock.ahead;
  const clockText = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

  // --- ages ---------------------------------------------------------------------------------------------------------

  const ageText = (ms) => {
    const seconds = Math.floor(ms / 1000);
    if (seconds < 0) return "in the future";
    if (seconds < 60) return `${seconds} s ago`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${seconds % 60} s ago`;
    const hours = Math.floor(minutes / 60);
    if (hours < 24) return `${hours} h ${minutes % 60} min ago`;
    const days = Math.floor(hours / 24);
    return days < 7 ? `${days} d ${hours % 24} h ago` : `${days} d ago`;
  };

  const updateAges = () => {
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
  let receivedAt = performance.now();
  let retryMs = 1000;
  let retryTimer = 0;

  // While the connection is lost, the state of a series is unknown. The last state would look current.
  const showStates = (known) => {
    for (const state of document.querySelectorAll(".state")) {
      if (!known) state.dataset.known ??= state.textContent;
      state.textContent = known ? (state.dataset.known ?? state.textContent) : "Unknown";
      if (known) delete state.dataset.known;
      state.classList.toggle("unknown", !known);
    }
  };

  const showConnection = (state) => {
    if (document.body.dataset.link === state) return;
    document.body.dataset.link = state;
    showStates(state !== "lost");
    byId("link").textContent = {
      wait: "Connecting",
      live: "Live",
      lost: `Connection lost at ${clockText(now())} UTC. The data below is older; reconnecting.`,
    }[state];
  };

  const onMessage = (message) => {
    const data = JSON.parse(message.data);
    if (data.now) serverClock.ahead = data.now - Date.now();
    receivedAt = performance.now();
    retryMs = 1000;
    showConnection("live");
    return data;
  };

  const connect = () => {
    retryTimer = 0;
    source?.close();
    receivedAt = performance.now();
    source = new EventSource("/live");
    source.addEventListener("hello", (message) => {
      const { script } = onMessage(message);
      // The server has another version: its rows need its own style and script.
      if (!document.querySelector("script").src.endsWith(script)) location.reload();
    });
    source.addEventListener("latest", (message) => {
      applyUpdate(onMessage(message));
      updateAges();
    });
    source.addEventListener("beat", onMessage);
    source.onerror = () => onLost();
  };

  // Reconnects, since browsers do not reconnect after every kind of failure.
  const onLost = () => {
    showConnection("lost");
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

  // --- the chart ----------------------------------------------------------------------------------------------------

  let swapping = null;
  let chartAt = performance.now();
  let chartTimer = 0;

  // Replaces the chart with the chart of an address. Keyboard focus stays on the same control.
  const swap = async (address, focusOn) => {
    swapping?.abort();
    const current = (swapping = new AbortController());
    try {
      const response = await fetch(address, { signal: current.signal });
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
      updateAges();
      return true;
    } catch {
      return current.signal.aborted; // true if a newer request replaced this one, false after a failure
    } finally {
      if (swapping === current) swapping = null;
    }
  };

  const labelOf = (control) => `${control.parentElement.getAttribute("aria-label")} ${control.textContent}`;

  const refreshChart = () => {
    if (chartTimer) return;
    const wait = Math.max(0, CHART_PAUSE_MS - (performance.now() - chartAt));
    chartTimer = setTimeout(() => {
      chartTimer = 0;
      // A request that a click started also returns the newest data, so no second request is needed.
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

  // --- timers -------------------------------------------------------------------------------------------------------

  setInterval(() => {
    updateAges();
    if (performance.now() - receivedAt > LOST_AFTER_MS) onLost();
    if (byId("chart") && document.body.dataset.link === "live" && performance.now() - chartAt > CHART_AGE_MS) refreshChart();
  }, 1000);
  // A page that the browser restores from its back/forward cache has no connection.
  addEventListener("pageshow", (shown) => shown.persisted && !retryTimer && connect());

  const loaded = document.querySelector("[data-now]");
  if (loaded) serverClock.ahead = Number(loaded.dataset.now) - Date.now();
  showConnection("wait");
  updateAges();
  connect();
})();
