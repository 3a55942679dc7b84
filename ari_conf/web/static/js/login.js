// Login pages: show the reason why the user must log in again. The page has the words for wrong credentials.
const refused = document.getElementById("refused");
const WHY = { ...refused.dataset, ended: "You are no longer logged in. Log in again." };

const error = new URLSearchParams(location.search).get("error");
if (error) refused.textContent = WHY[error] ?? "The login failed. Try again.";
