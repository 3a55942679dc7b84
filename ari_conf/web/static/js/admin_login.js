// Login page of administrators: shows the reason why they must log in again.
const WHY = {
  wrong: "The key is wrong.",
  ended: "You are no longer logged in. Log in again.",
  often: "Too many wrong keys. Wait a minute, then try again.",
};

const error = new URLSearchParams(location.search).get("error");
if (error) document.getElementById("refused").textContent = WHY[error] ?? "The login failed. Try again.";
