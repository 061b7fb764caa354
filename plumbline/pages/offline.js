// What Great Expectations' pages need of jQuery and Bootstrap: the filter, and nothing that fades.
function showOnly(failed) {
  document.querySelectorAll("tr").forEach((row) => {
    const icon = row.querySelector(":scope > td:first-child i.text-success");
    row.style.display = failed && icon ? "none" : "";
  });
}
function showAllValidations() { showOnly(false); }
function hideSucceededValidations() { showOnly(true); }
