-- The result of a wrk run as one line of JSON, and the body of an upload: `-- BYTES` makes every request a POST.

function init(args)
   if args[1] then
      wrk.method = "POST"
      wrk.body = string.rep("x", tonumber(args[1]))
      wrk.headers["content-type"] = "application/octet-stream"
   end
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
