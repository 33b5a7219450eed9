-- Headers of answers by which programs go on. A name of the inside is taken off and the path stays: the caller goes on by the name
-- that it knows (RFC 9110 §10.2.2). A cookie without a domain is the asked host's (RFC 6265 §5.3).
-- Values are an application's, and up to 60 KiB long: no pattern may look at a character more than a few times, since a worker of
-- the gateway, and with it every peer, waits meanwhile. So no pattern has two repetitions side by side that fit the same text.

local function link(value)
  return (value:gsub("<([^<>]*)>", function(url) return "<" .. relative(url) .. ">" end))
end

local function refresh(value)
  local before, url = value:match("^(%s*[%d.]*%s*[;,]?%s*)(.*)$")
  local key, rest = url:match("^([uU][rR][lL]%s*=%s*)(.*)$")
  if key then
    before, url = before .. key, rest
  end
  local quote, quoted = url:match("^(['\"])(.*)$")
  if quote then
    before, url = before .. quote, quoted
  end
  local bare, after = url:match("^([^'\"]*)(.*)$")
  return before .. relative(bare) .. after
end

-- trim takes off both ends what is not of a class.
local function trim(text, class)
  local from = text:find(class)
  return from and text:match(".*" .. class, from) or ""
end

local function cookie(value)
  return (value:gsub(";([^;]*)", function(attribute)
    local key, domain = attribute:match("^([^=]*)=(.*)$")
    if not key or trim(key, "%S"):lower() ~= "domain" then
      return nil
    end
    domain = trim(trim(domain, "%S"), "[^.]"):lower()
    if inside(domain) or ("." .. host):sub(-#domain - 1) == "." .. domain then
      return ""
    end
  end))
end

local function origin(value)
  local authority = value:match("^%a[%w+.-]*://(.*)$")
  if not authority or not inside(authority) then
    return value
  end
end

local rewritten = {
  ["location"] = relative, ["content-location"] = relative, ["link"] = link, ["refresh"] = refresh,
  ["set-cookie"] = cookie, ["access-control-allow-origin"] = origin,
}

function envoy_on_response(handle)
  local headers = handle:headers()
  for name, rewrite in pairs(rewritten) do
    local n = headers:getNumValues(name)
    if n > 0 then
      local before, after, changed = {}, {}, false
      for i = 0, n - 1 do
        before[i + 1] = headers:getAtIndex(name, i)
      end
      for _, value in ipairs(before) do
        local now = rewrite(value)
        changed = changed or now ~= value
        after[#after + 1] = now
      end
      if changed then
        headers:remove(name)
        for _, value in ipairs(after) do
          headers:add(name, value)
        end
      end
    end
  end
end
