"use strict";
const search = document.getElementById("search");
const found = document.getElementById("found");
const sections = Array.from(document.querySelectorAll("main section"), (section) => ({
  section,
  entry: document.querySelector(`nav a[href="#${CSS.escape(section.id)}"]`).parentElement,
  text: section.dataset.text,
  rows: Array.from(section.querySelectorAll("tbody tr"), (row) => ({ row, text: row.textContent.toLowerCase() })),
}));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let tables = 0;
  let columns = 0;
  for (const { section, entry, text, rows } of sections) {
    const rest = words.filter((word) => !text.includes(word));
    let shown = 0;
    for (const { row, text: words_of_row } of rows) {
      row.hidden = !rest.every((word) => words_of_row.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    section.hidden = entry.hidden = shown === 0;
    tables += shown ? 1 : 0;
    columns += shown;
  }
  for (const group of document.querySelectorAll("nav [data-group], main [data-group]")) {
    group.hidden = !group.querySelector("li:not([hidden]), section:not([hidden])");
  }
  found.textContent = `${tables} tables, ${columns} columns`;
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.closest("[hidden]")) {
    search.value = "";
    filter();
    target.scrollIntoView();
  }
}

search.addEventListener("input", filter);
window.addEventListener("hashchange", reveal);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && document.activeElement === search) {
    search.value = "";
    filter();
  }
});
document.getElementById("searching").hidden = false;
filter();
reveal();
