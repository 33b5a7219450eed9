-- What names the inside of a mesh: its services' names, and addresses that nobody outside can reach. names, suffix and host are given.

-- No machine code is made at run time: where a sandbox forbids that (MemoryDenyWriteExecute= of systemd), to try would end Envoy.
jit.off()

local function private(host)
  local a, b = host:match("^(%d+)%.(%d+)%.%d+%.%d+$")
  if a then
    a, b = tonumber(a), tonumber(b)
    return a == 0 or a == 10 or a == 127 or a >= 224 or (a == 100 and b >= 64 and b < 128) or (a == 169 and b == 254) or
      (a == 172 and b >= 16 and b < 32) or (a == 192 and b == 168)
  end
  return host:find(":", 1, true) ~= nil and
    (host:find("^::") or host:find("^100:") or host:find("^f[cd]") or host:find("^fe[89ab]")) ~= nil
end

local function inside(authority)
  local host = authority:lower():gsub("^.*@", "")
  host = host:match("^%[([^%]]*)%]") or host:gsub(":%d*$", "")
  host = host:gsub("%.$", "")
  return names[host] or host == "localhost" or host:sub(-#suffix) == suffix or private(host)
end

local function relative(url)
  local authority, rest = url:match("^%s*%a[%w+.-]*:[/\\]+([^/\\?#]*)(.*)$")
  if not authority then
    authority, rest = url:match("^%s*[/\\][/\\]+([^/\\?#]*)(.*)$")
  end
  if not authority or not inside(authority) then
    return url
  end
  return "/" .. rest:gsub("^[/\\]+", "")
end
