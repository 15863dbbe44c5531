// Mathematics that is wider than its column scrolls in itself; the page never does.
const narrow = () => document.querySelectorAll("mjx-container").forEach(each => {
  const column = each.closest("p, li, td, dd, div");
  if (column && each.getBoundingClientRect().width > column.clientWidth)
    each.style.cssText += "display:inline-block;max-width:100%;overflow-x:auto;overflow-y:hidden;vertical-align:middle;";
});
window.addEventListener("load", () => {
  const ready = window.MathJax && MathJax.startup && MathJax.startup.promise;
  (ready || Promise.resolve()).then(narrow);
});
