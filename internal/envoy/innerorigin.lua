-- Where in this mesh a request was made is nobody's business outside it. Sites of the outside world stay.

function envoy_on_request(handle)
  local headers = handle:headers()
  for _, name in ipairs({"origin", "referer"}) do
    for i = headers:getNumValues(name) - 1, 0, -1 do
      local value = headers:getAtIndex(name, i)
      if value and relative(value) ~= value then
        headers:remove(name)
        break
      end
    end
  end
end
