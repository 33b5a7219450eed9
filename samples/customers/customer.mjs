// Asks a URL again and again with Node's own fetch, which keeps its connections, until standard input ends.
//
// Usage: node customer.mjs URL PAUSE_MS. Prints one line of JSON at the end.
const [url, pause] = [process.argv[2], Number(process.argv[3])];
const result = { requests: 0, failures: 0, failed: [], slowest: 0 };
let ended = false;
process.stdin.on("end", () => { ended = true; }).resume();
const once = async () => {
  const answer = await fetch(url, { signal: AbortSignal.timeout(5000) });
  const body = await answer.text();
  if (answer.status >= 400) throw new Error(`${answer.status} ${body.slice(0, 120)}`);
};
// What a request waited for, asked as it fails.
const phase = (e) => {
  const system = { getaddrinfo: "resolve", connect: "connect" }[e.cause?.syscall];
  if (system) return system;
  const waits = process.getActiveResourcesInfo();
  if (waits.includes("GetAddrInfoReqWrap")) return "resolve";
  return waits.includes("TCPConnectWrap") ? "connect" : "answer";
};
while (!ended) {
  result.requests++;
  const began = new Date();
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
      const error = `${e.message} ${e.cause?.code ?? e.cause?.message ?? ""}`;
      if (result.failed.length < 1000) result.failed.push({ time: began, took: (Date.now() - began) * 1e6, phase: phase(e), error });
    }
  }
  const took = (Date.now() - began) * 1e6;
  if (took > result.slowest) Object.assign(result, { slowest: took, slowestAt: began });
  await new Promise((done) => setTimeout(done, pause));
}
console.log(JSON.stringify(result));
process.exit(0);
