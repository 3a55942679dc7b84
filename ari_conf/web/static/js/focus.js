// The list changes by itself. If what has the focus goes (a member leaves), the focus goes to the nearest home around it
// that is left, such as the conference's heading, and not to the top of the page.
let homes = [];
let focused = null;

export function keepFocus() {
  document.addEventListener("focusin", ({ target }) => {
    focused = target;
    homes = [];
    for (let around = target.closest("[data-home]"); around; around = around.parentElement?.closest("[data-home]")) homes.push(around);
  });
  new MutationObserver(() => {
    if (!focused || focused.isConnected || document.activeElement !== document.body) return;
    const home = homes.find((each) => each.isConnected);
    (home?.querySelector("[data-focus]") ?? document.querySelector("h1"))?.focus();
  }).observe(document.body, { childList: true, subtree: true });
}
