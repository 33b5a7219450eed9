// Asks a URL again and again with Node's own fetch, which keeps its connections, until standard input ends.
//
// Usage: node customer.mjs URL PAUSE_MS. Prints one line of JSON at the end.
const [url, pause] = [process.argv[2], Number(process.argv[3])];
const result = { requests: 0, failures: 0, firstFailure: "" };
let ended = false;
process.stdin.on("end", () => { ended = true; }).resume();
const once = async () => {
  const answer = await fetch(url, { signal: AbortSignal.timeout(5000) });
  const body = await answer.text();
  if (answer.status >= 400) throw new Error(`${answer.status} ${body.slice(0, 120)}`);
};
while (!ended) {
  result.requests++;
  try {
    await once();
  } catch (e) {
    // A kept connection that ends as the request leaves is not tried again by fetch: callers do so for safe methods.
    const cut = ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes(e.cause?.code);
    try {
      if (!cut) throw e;
      await once();
    } catch (e) {
      result.failures++;
      result.firstFailure ||= `${new Date().toISOString()} ${e.message} ${e.cause?.code ?? ""}`;
    }
  }
  await new Promise((done) => setTimeout(done, pause));
}
console.log(JSON.stringify(result));
process.exit(0);
