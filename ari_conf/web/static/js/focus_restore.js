// Focus: lists change without the user's action. If the focused element is removed (a member leaves), the focus moves
// to the nearest remaining `data-home` around it, such as the conference's heading, and not to the top of the page.
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
