// A table of texts, with a caption. Everything enters through textContent.
function render({ model, el }) {
  const table = document.createElement("table");
  table.className = "sv-table";
  const note = document.createElement("div");
  note.className = "sv-note";
  const frame = document.createElement("div");
  frame.className = "sv-table-frame";
  frame.append(table);
  el.append(frame, note);
  const cells = (row, kind, texts) => texts.forEach((text) => {
    const cell = document.createElement(kind);
    cell.textContent = text;
    row.append(cell);
  });
  function draw() {
    table.replaceChildren();
    note.textContent = model.get("note");
    const rows = model.get("rows");
    table.style.display = rows.length || model.get("caption") ? "" : "none";
    table.createCaption().textContent = model.get("caption");
    if (!rows.length) return;
    cells(table.createTHead().insertRow(), "th", model.get("columns"));
    const body = table.createTBody();
    for (const texts of rows) cells(body.insertRow(), "td", texts);
  }
  draw();
  for (const name of ["caption", "columns", "rows", "note"]) model.on(`change:${name}`, draw);
}
export default { render };
