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

  function setUpFilter(form) {
    const table = document.getElementById(form.dataset.filter);
    const rows = [...table.querySelectorAll("tbody tr:not(.divider)")];
    const names = new Map(rows.map((row) => [row, row.querySelector(".method").dataset.sort]));
    const apply = () => {
      const text = form.elements.text.value.trim().toLowerCase();
      const rankedOnly = form.elements.ranked ? form.elements.ranked.checked : false;
      let shown = 0;
      for (const row of rows) {
        row.hidden = !names.get(row).includes(text) || (rankedOnly && "unranked" in row.parentElement.dataset);
        shown += !row.hidden;
      }
      for (const divider of table.querySelectorAll(".divider")) {
        divider.hidden = ![...divider.parentElement.rows].some((row) => row !== divider && !row.hidden);
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", apply);
    form.hidden = false;
    apply();
  }

  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    document.querySelectorAll("table[data-sortable]").forEach(setUpSorting);
    document.querySelectorAll("form[data-filter]").forEach(setUpFilter);
  });
})();
