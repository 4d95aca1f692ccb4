// A table of texts, with a caption. Everything enters through textContent.
function render({ model, el }) {
  const table = document.createElement("table");
  table.className = "sv-table";
  el.append(table);
  const cells = (row, kind, texts) => texts.forEach((text) => {
    const cell = document.createElement(kind);
    cell.textContent = text;
    row.append(cell);
  });
  function draw() {
    table.replaceChildren();
    const rows = model.get("rows");
    table.style.display = rows.length || model.get("caption") ? "" : "none";
    table.createCaption().textContent = model.get("caption");
    if (!rows.length) return;
    cells(table.createTHead().insertRow(), "th", model.get("columns"));
    const body = table.createTBody();
    for (const texts of rows) cells(body.insertRow(), "td", texts);
  }
  draw();
  for (const name of ["caption", "columns", "rows"]) model.on(`change:${name}`, draw);
}
export default { render };
