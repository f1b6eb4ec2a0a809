-- POSTs of `-- BYTES [MEAN]` bytes; with MEAN every connection waits 0 … 2 × MEAN ms, uniform, before each of them.

function init(args)
   wrk.method = "POST"
   wrk.body = string.rep("x", tonumber(args[1]))
   wrk.headers["content-type"] = "application/octet-stream"
   local mean = tonumber(args[2] or 0)
   if mean > 0 then
      math.randomseed(1)
      function delay() -- whole milliseconds: the fraction is drawn too
         local ms = math.random() * 2 * mean
         local whole = math.floor(ms)
         return whole + (math.random() < ms - whole and 1 or 0)
      end
   end
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
