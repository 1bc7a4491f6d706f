"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Without a script everything is visible and nothing can be pressed; what needs one appears now.
  for (const element of all("[data-needs-script]")) element.hidden = false;

  // Light or dark: as the system says, until the button says otherwise.
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  system.addEventListener("change", nameTheme);
  nameTheme();

  // Filters: an item stays if it holds every word that is searched for, and every value that is chosen.
  for (const area of all("[data-filtered]")) {
    const search = area.querySelector("input[type=search]");
    const choices = all("select", area);
    const output = area.querySelector("output");
    const items = all("[data-item]", area).map((element) => ({ element, text: element.textContent.toLowerCase() }));
    const has = ({ element }, name, value) =>
      [element, ...all(`[data-${name}]`, element)].some((e) => e.dataset[name] === value);
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = choices.filter((c) => c.value !== "").map((c) => [c.name, c.value]);
      let n = 0;
      for (const item of items) {
        const stays = words.every((w) => item.text.includes(w)) && chosen.every(([k, v]) => has(item, k, v));
        item.element.hidden = !stays;
        n += stays;
      }
      output.textContent = `${n} of ${items.length} ${area.dataset.filtered}`;
    };
    search.addEventListener("input", apply);
    for (const choice of choices) choice.addEventListener("change", apply);
    area.querySelector("[data-reset]").addEventListener("click", () => {
      search.value = "";
      for (const choice of choices) choice.value = "";
      apply();
      search.focus();
    });
    const toggle = area.querySelector("[data-toggle]");
    toggle?.addEventListener("click", () => {
      const visible = items.map((i) => i.element).filter((e) => !e.hidden);
      const open = visible.some((e) => !e.open);
      for (const element of visible) element.open = open;
    });
    apply();
  }

  // Tables that can be sorted by a column; a second press turns the order round.
  for (const button of all("th button")) {
    const head = button.closest("th");
    const column = [...head.parentElement.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => row.children[column].dataset.number ?? row.children[column].textContent;
      const compare = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const rows = [...body.rows].sort((a, b) => (falls ? compare(b, a) : compare(a, b)));
      body.append(...rows);
    });
  }

  // An address that names a finding opens it.
  const openNamed = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (card?.matches("details")) card.open = true;
  };
  addEventListener("hashchange", openNamed);
  openNamed();
})();
