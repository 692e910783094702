"use strict";
// A click on a heading sorts the table by it; a second click turns the order round. Missing values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const order = heading.ariaSort === "ascending" ? "descending" : "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const numeric = heading.classList.contains("number");
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? (Number(a) > Number(b)) - (Number(a) < Number(b)) : a.localeCompare(b));
    });
    table.tBodies[0].append(...rows);
  }));
}
