"use strict";
// Everything here is an extra: without it the tables are plain and the colours follow the system.
(() => {
  const root = document.documentElement;
  const KEY = "lampbench-theme";

  // Storage may be refused, as on file:// in some browsers: the choice then lasts for the page.
  const remembered = () => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  };
  const remember = (theme) => {
    try { localStorage.setItem(KEY, theme); } catch { /* for this page only */ }
  };
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  // Before the first paint, so that no page flashes in the other colours.
  const stored = remembered();
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;

  function setUpTheme() {
    const button = document.getElementById("theme");
    const other = () => ((root.dataset.theme || system()) === "dark" ? "light" : "dark");
    const name = () => {
      button.textContent = other() === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `Switch to ${other()} colours`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      remember(root.dataset.theme);
      name();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    name();
    button.hidden = false;
  }

  // What is absent goes last, whatever the order; equals keep the order they came in.
  function sortBody(body, original, place, numeric, ascending) {
    const dividers = original.filter((row) => row.classList.contains("divider"));
    const rows = original.filter((row) => !row.classList.contains("divider"));
    const keyed = rows.map((row) => [row.cells[place].dataset.sort, row]);
    const sign = ascending ? 1 : -1;
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? Number(a) - Number(b) : (a > b) - (a < b));
    });
    body.replaceChildren(...dividers, ...keyed.map(([, row]) => row));
  }

  function setUpSorting(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const original = new Map([...table.tBodies].map((body) => [body, [...body.rows]]));
    heads.forEach((head, place) => {
      const title = head.querySelector(".title");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => {
        const opposite = { ascending: "descending", descending: "ascending" };
        const order = opposite[head.getAttribute("aria-sort")] || head.dataset.first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        for (const body of table.tBodies) {
          sortBody(body, original.get(body), place, "numeric" in head.dataset, order === "ascending");
        }
      });
    });
  }

  // Lines of a plot of one line per entry close up; what is beside the line of a hidden entry goes with it.
  function filterPlots(hidden) {
    for (const own of document.querySelectorAll("[data-entry]")) {
      own.toggleAttribute("hidden", hidden.has(own.dataset.entry));
    }
    for (const plot of document.querySelectorAll("svg[data-row]")) {
      const [top, height] = [Number(plot.dataset.top), Number(plot.dataset.row)];
      const places = new Map();
      for (const own of plot.querySelectorAll("g[data-entry]:not([hidden])")) {
        places.set(own.dataset.entry, top + height * places.size);
      }
      for (const own of plot.querySelectorAll("[data-entry]:not([hidden])")) {
        own.setAttribute("transform", `translate(0 ${places.get(own.dataset.entry)})`);
      }
      const [, , width] = plot.getAttribute("viewBox").split(" ");
      plot.setAttribute("viewBox", `0 0 ${width} ${top + height * places.size + 6}`);
    }
    // The front is that of all entries: of some it would be another.
    for (const front of document.querySelectorAll(".front-line")) front.toggleAttribute("hidden", hidden.size > 0);
  }

  function setUpFilter(form) {
    const table = document.getElementById(form.dataset.filter);
    const rows = [...table.querySelectorAll("tbody tr:not(.divider)")];
    const names = new Map(rows.map((row) => [row, row.querySelector(".method").dataset.sort]));
    const apply = () => {
      const text = form.elements.text.value.trim().toLowerCase();
      const rankedOnly = form.elements.ranked ? form.elements.ranked.checked : false;
      const hidden = new Set();
      for (const row of rows) {
        row.hidden = !names.get(row).includes(text) || (rankedOnly && "unranked" in row.parentElement.dataset);
        if (row.hidden) hidden.add(row.id);
      }
      for (const divider of table.querySelectorAll(".divider")) {
        divider.hidden = ![...divider.parentElement.rows].some((row) => row !== divider && !row.hidden);
      }
      filterPlots(hidden);
      form.querySelector("output").textContent = `${rows.length - hidden.size} of ${rows.length} shown`;
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const name of ["text", "ranked"]) form.elements[name]?.addEventListener("input", apply);
    form.hidden = false;
    apply();
  }

  function setUpColumns(form) {
    const table = document.getElementById(form.dataset.filter);
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const boxes = [...form.querySelectorAll("input[name=column]")];
    const views = [...form.querySelectorAll("button[data-view]")];
    const lines = [table.tHead, ...table.tBodies].flatMap((part) => [...part.rows]);
    const isMain = (box) => "main" in heads[box.value].dataset;
    const viewOf = (box) => heads[box.value].dataset.view;
    // Every view has the score, so that costs can be read beside it.
    const score = boxes.find((box) => isMain(box) && viewOf(box) === "quality");
    const isIn = (box, view) => view === "all" || box === score || (view === "main" ? isMain(box) : viewOf(box) === view);
    const show = () => {
      for (const row of lines) {
        if (row.cells.length === heads.length) {
          for (const box of boxes) row.cells[box.value].hidden = !box.checked;
        }
      }
      for (const own of views) {
        own.setAttribute("aria-pressed", String(boxes.every((box) => box.checked === isIn(box, own.dataset.view))));
      }
    };
    for (const own of views) {
      own.addEventListener("click", () => {
        for (const box of boxes) box.checked = isIn(box, own.dataset.view);
        show();
      });
    }
    for (const box of boxes) box.addEventListener("input", show);
    // Browsers remember boxes over a reload.
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    document.querySelectorAll("table[data-sortable]").forEach(setUpSorting);
    document.querySelectorAll("form[data-filter]").forEach(setUpFilter);
    document.querySelectorAll("form[data-filter]").forEach(setUpColumns);
  });
})();
