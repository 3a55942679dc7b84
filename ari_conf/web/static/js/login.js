// Login page: shows the reason why the user must log in again.
const WHY = {
  wrong: "Auth ID or auth token is wrong.",
  ended: "You are no longer logged in. Log in again.",
  often: "Too many wrong tokens. Wait a minute, then try again.",
};

const error = new URLSearchParams(location.search).get("error");
if (error) document.getElementById("refused").textContent = WHY[error] ?? "The login failed. Try again.";
