-- Refuses JSON with a field that the contract does not have: Envoy would drop it, and a misspelt "dryRun" would act.
-- FIELDS: message → field → its message, "" for what has no fields, "*" for what may have any. Text that is no JSON is
-- left to the transcoder, which says what is wrong with it.

local function after_space(text, at)
  return text:find("[^ \t\r\n]", at) or #text + 1
end

local function string_at(text, at)
  local from = at + 1
  while true do
    local stop = text:find('["\\]', at + 1)
    if text:byte(stop) == 34 then return text:sub(from, stop - 1), stop + 1 end
    at = stop + 1
  end
end

local walk

local function walk_list(text, at, kind, path)
  at = after_space(text, at + 1)
  while text:sub(at, at) ~= "]" do
    at = after_space(text, walk(text, at, kind, path))
    if text:sub(at, at) == "," then at = after_space(text, at + 1) end
  end
  return at + 1
end

local function walk_object(text, at, kind, path)
  at = after_space(text, at + 1)
  while text:sub(at, at) ~= "}" do
    local name
    name, at = string_at(text, at)
    local inner = "*"
    if kind ~= "*" and not name:find("\\", 1, true) then
      inner = FIELDS[kind] and FIELDS[kind][name]
      if not inner then error({unknown = path .. name}) end
    end
    at = after_space(text, after_space(text, at) + 1)
    at = after_space(text, walk(text, at, inner, path .. name .. "."))
    if text:sub(at, at) == "," then at = after_space(text, at + 1) end
  end
  return at + 1
end

walk = function(text, at, kind, path)
  local first = text:sub(at, at)
  if first == "{" then return walk_object(text, at, kind, path) end
  if first == "[" then return walk_list(text, at, kind, path) end
  if first == '"' then
    local _, stop = string_at(text, at)
    return stop
  end
  local stop = text:find("[,%]} \t\r\n]", at)
  if not stop or stop == at then error("no value") end
  return stop
end

function envoy_on_request(handle)
  local request = handle:filterContext():get("request")
  if not request then return end
  local body = handle:body()
  if not body then return end
  local text = body:getBytes(0, body:length())
  local fine, failure = pcall(walk, text, after_space(text, 1), request, "")
  if not fine and type(failure) == "table" then
    handle:respond({[":status"] = "400"}, "there is no field " .. failure.unknown)
  end
end
