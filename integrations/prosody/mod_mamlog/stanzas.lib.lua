-- Stanzas into text, and back.

local parse_xml = require "util.xml".parse

local find, gsub, match = string.find, string.gsub, string.match
local escapes = { ["'"] = "&apos;", ["\""] = "&quot;", ["<"] = "&lt;", [">"] = "&gt;", ["&"] = "&amp;" }

local function escaped(text)
	if find(text, "['\"<>&]") then
		return (gsub(text, "['\"<>&]", escapes))
	end
	return text
end

-- Puts the pieces of an element's text into out after the n-th. Every message goes
-- through here, and what isn't allocated needs not be collected.
local function write(out, n, element, xmlns, default)
	local attr, name = element.attr, element.name
	out[n + 1], out[n + 2] = "<", name
	n = n + 2
	if default and attr.xmlns == nil then
		out[n + 1] = default
		n = n + 1
	end
	local prefixes = 0
	for key, value in pairs(attr) do
		if find(key, "\1", 1, true) then
			local space, local_name = match(key, "^([^\1]*)\1(.*)$")
			prefixes = prefixes + 1
			out[n + 1] = (" xmlns:ns%d='%s' ns%d:%s='"):format(prefixes, escaped(space), prefixes, local_name)
			out[n + 2], out[n + 3] = escaped(value), "'"
			n = n + 3
		elseif key ~= "xmlns" or value ~= xmlns then
			out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = " ", key, "='", escaped(value), "'"
			n = n + 5
		end
	end
	local children = #element
	if children == 0 then
		out[n + 1] = "/>"
		return n + 1
	end
	out[n + 1] = ">"
	n = n + 1
	xmlns = attr.xmlns
	for i = 1, children do
		local child = element[i]
		if child.name then
			n = write(out, n, child, xmlns)
		else
			n = n + 1
			out[n] = escaped(child)
		end
	end
	out[n + 1], out[n + 2], out[n + 3] = "</", name, ">"
	return n + 3
end

local pieces = {}

-- The text of a stanza with its namespace, which streams of components don't have.
local function serialize(stanza)
	return table.concat(pieces, "", 1, write(pieces, 0, stanza, nil, " xmlns='jabber:client'"))
end

-- In Prosody, what is in the stream's namespace has none.
local function without_default(element)
	if element.attr.xmlns ~= "jabber:client" then return end
	element.attr.xmlns = nil
	for _, child in ipairs(element.tags) do
		without_default(child)
	end
end

-- The stanzas of a text that holds them one after another, each with its namespace.
local function parse(text)
	local root, err = parse_xml("<stanzas>" .. text .. "</stanzas>")
	if not root then return nil, err end
	for _, stanza in ipairs(root.tags) do
		without_default(stanza)
	end
	return root.tags
end

-- Tells whether two elements say the same. Their texts may differ in the order of
-- attributes.
local function equal(a, b)
	if type(a) ~= "table" or type(b) ~= "table" then return a == b end
	if a.name ~= b.name or #a ~= #b then return false end
	for key, value in pairs(a.attr) do
		if b.attr[key] ~= value then return false end
	end
	for key in pairs(b.attr) do
		if a.attr[key] == nil then return false end
	end
	for i = 1, #a do
		if not equal(a[i], b[i]) then return false end
	end
	return true
end

-- mod_mam archives a note to oneself twice in a row. Tells whether this is the second
-- copy; notes is whatever the caller keeps for that, by owner.
local function is_second_copy(notes, owner, stanza)
	local last = notes[owner]
	if last and equal(last, stanza) then
		notes[owner] = nil
		return true
	end
	notes[owner] = stanza
	return false
end

return {
	escaped = escaped, serialize = serialize, parse = parse, without_default = without_default,
	is_second_copy = is_second_copy,
}
