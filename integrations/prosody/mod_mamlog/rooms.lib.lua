-- Messages of rooms, as mod_muc_mam captures them, and the history for who joins.

local async = require "util.async"
local datetime = require "util.datetime"
local st = require "util.stanza"
local timer = require "util.timer"
local jid_bare = require "util.jid".bare
local jid_node = require "util.jid".node
local jid_prep = require "util.jid".prep
local time_now = require "util.time".now
local stanzas = module:require "stanzas"

local xmlns_hints = "urn:xmpp:hints"
local xmlns_mam = "urn:xmpp:mam:2"
local xmlns_muc_user = "http://jabber.org/protocol/muc#user"
local enable_field = "muc#roomconfig_enablearchiving"
local default_history_length = 20
local last_second = 253402300799 -- that XEP-0082 can name
local most_results = 50 -- in a page, by default of the archive

local function new(mamlog, link, outbox, capture, relay)
	local muc = module:depends "muc"
	local log_all_rooms = module:get_option_boolean("muc_log_all_rooms", false)
	local log_by_default = module:get_option_boolean("muc_log_by_default", true)
	local max_history_length = module:get_option_number("max_history_messages", math.huge)
	local rooms = {}
	function mamlog.lead() end
	function mamlog.follow() end

	local function is_archived(room)
		if log_all_rooms then return true end
		local enabled = room._data.archiving
		if enabled == nil then return log_by_default end
		return enabled
	end
	rooms.is_archived = is_archived

	if not log_all_rooms then
		module:hook("muc-config-form", function (event)
			if not mamlog.primary then return end
			table.insert(event.form, {
				name = enable_field, type = "boolean", label = "Keep an archive of the messages", value = is_archived(event.room),
			})
		end)
		module:hook("muc-config-submitted/" .. enable_field, function (event)
			if not mamlog.primary then return end
			event.room._data.archiving = event.value
			event.status_codes[event.value and "170" or "171"] = true
		end)
	end

	-- Who joins sees a message once, and those of the archive before those that come
	-- live: while the history of a room is fetched nothing is broadcast in it, and it is
	-- fetched when nothing is on its way to the archive.
	local doors = setmetatable({}, { __mode = "k" }) -- by room

	local function door_of(room)
		local door = doors[room]
		if not door then
			door = { messages = 0, readers = 0, waiting = {} }
			doors[room] = door
		end
		return door
	end

	local function may_enter(door, reader)
		return reader and door.messages == 0 or not reader and door.readers == 0
	end

	local function enter(door, reader)
		if door.waiting[1] or not may_enter(door, reader) then
			local wait, done = async.waiter()
			table.insert(door.waiting, { reader = reader, done = done })
			wait()
			return -- counted by whoever let it in
		end
		local kind = reader and "readers" or "messages"
		door[kind] = door[kind] + 1
	end

	-- Lets the next in when what follows now, the broadcast, has happened.
	local function leave(door, reader)
		local kind = reader and "readers" or "messages"
		door[kind] = door[kind] - 1
		if not door.waiting[1] then return end
		timer.add_task(0, function ()
			while door.waiting[1] and may_enter(door, door.waiting[1].reader) do
				local next_one = table.remove(door.waiting, 1)
				local kind_of_next = next_one.reader and "readers" or "messages"
				door[kind_of_next] = door[kind_of_next] + 1
				next_one.done()
			end
		end)
	end

	local function without_muc_user(stanza)
		if not stanza:get_child("x", xmlns_muc_user) then return stanza end
		return st.clone(stanza):maptags(function (tag)
			if tag.name ~= "x" or tag.attr.xmlns ~= xmlns_muc_user then return tag end
		end)
	end

	-- The message as it is archived: to nobody, and with nothing about its sender that
	-- only the archive may say.
	local function serialized(stanza)
		local to = stanza.attr.to
		stanza.attr.to = nil
		local xml = capture.serialize(without_muc_user(stanza))
		stanza.attr.to = to
		return xml
	end

	local function new_entry(room, stanza, key) -- without a key: a new one
		local from = stanza.attr.from
		local occupant = room._occupants[from]
		local more = ""
		if occupant then
			more = " sender='" .. st.xml_escape(occupant.bare_jid) .. "'"
		end
		if room:get_whois() == "anyone" then
			more = more .. " whois='anyone'"
		end
		return { head = capture.head("room", room.jid, from, more, key), stanza = serialized(stanza) }
	end

	-- The message as mod_muc_mam keeps it.
	local function as_kept(room, stanza)
		local kept = st.clone(stanza)
		kept.attr.to = nil
		local occupant = room:get_whois() == "anyone" and room._occupants[stanza.attr.from]
		if occupant then
			kept:add_direct_child(st.stanza("x", { xmlns = xmlns_muc_user }):tag("item", {
				jid = occupant.bare_jid, role = occupant.role or "none",
				affiliation = room:get_affiliation(occupant.bare_jid) or "none",
			}))
		end
		return kept
	end

	module:hook("muc-broadcast-message", function (event)
		if not mamlog.primary then return end
		local stanza = event.stanza
		if stanza:get_child("stanza-id", "urn:xmpp:sid:0") then
			stanza:maptags(function (tag)
				if tag.name == "stanza-id" and tag.attr.xmlns == "urn:xmpp:sid:0" and jid_prep(tag.attr.by) == event.room.jid then
					return nil
				end
				return tag
			end)
		end
	end, 1)

	-- What a module has the room say while nothing can wait.
	module:hook("muc-broadcast-message", function (event)
		local room = event.room
		if mamlog.primary and not capture.can_wait() and outbox.waits() and is_archived(room) then
			local stanza = st.clone(event.stanza)
			capture.defer(room, function () room:broadcast_message(stanza) end)
			return true
		end
	end, 1000)

	-- Who is told when a message can't be archived.
	local senders = setmetatable({}, { __mode = "k" })
	module:hook("muc-occupant-groupchat", function (event)
		if not mamlog.primary then return end
		local stanza = event.stanza
		senders[stanza] = event
		if stanza:get_child("x", xmlns_muc_user) then -- for the room to say
			stanza:remove_children("x", xmlns_muc_user)
		end
	end, -1)

	-- Without a body, but worth to be read again.
	module:hook("muc-message-is-historic", function (event)
		if not mamlog.primary or not is_archived(event.room) then return end
		local stanza = event.stanza
		if stanza:get_child("no-store", xmlns_hints) or stanza:get_child("no-permanent-store", xmlns_hints) then
			return false
		elseif stanza:get_child("retract", "urn:xmpp:message-retract:1")
		or stanza:get_child("reactions", "urn:xmpp:reactions:0") then
			return true
		end
	end)

	local function await(room, entry)
		if not capture.can_wait() then
			return outbox.append(entry)
		end
		local door = door_of(room)
		enter(door, false)
		outbox.append(entry)
		capture.wait(entry)
		leave(door, false)
	end

	module:hook("muc-add-history", function (event)
		local room, stanza = event.room, event.stanza
		if not mamlog.primary or not is_archived(room) then return end
		local entry = new_entry(room, stanza)
		await(room, entry)
		if entry.failed then
			event.mamlog_failed = true
			return true
		end
		if entry.id then
			mamlog.archived(jid_node(room.jid), as_kept(room, stanza), entry.id, entry.time, "message<groupchat")
			stanza:add_direct_child(capture.stanza_id(room.jid, entry.id))
		end
	end, 0)

	module:hook("muc-broadcast-message", function (event)
		if not event.mamlog_failed then return end
		local sent = senders[event.stanza]
		if sent then
			local stanza = st.clone(event.stanza)
			stanza.attr.from = sent.from
			capture.bounce(sent.origin, stanza)
		end
		return true
	end, -1)

	-- While mod_muc_mam archives, what it has archived follows.
	module:hook("muc-add-history", function (event)
		local room, stanza = event.room, event.stanza
		if mamlog.primary then return end
		local id = stanza:get_child_with_attr("stanza-id", "urn:xmpp:sid:0", "by", room.jid)
		if id then
			local entry = new_entry(room, capture.without_ids(stanza), "mam:" .. id.attr.id)
			entry.must, entry.stamp = true, time_now()
			await(room, entry)
		end
	end, -0.5)

	local wait_first = capture.before_message(function (stanza)
		return mamlog.primary and stanza.attr.type == "groupchat"
	end)
	module:hook("message/bare", wait_first, 1000)
	module:hook("message/full", wait_first, 1000)

	-- To join may be to wait for the history.
	module:hook("presence/full", function (event)
		local origin, stanza = event.origin, event.stanza
		if stanza.attr.type or not stanza:get_child("x", "http://jabber.org/protocol/muc") then return end
		if capture.can_wait() then
			capture.will_wait(origin)
		elseif mamlog.primary and link.up then
			capture.defer(origin, st.clone(stanza))
			return true
		end
	end, 999)

	-- One page of a room's newest messages before an id, or all of them.
	local function fetch(room, asker, most, since, before)
		local iq = st.iq({ type = "set", id = "history", from = asker, to = room.jid })
			:tag("query", { xmlns = xmlns_mam })
		iq:tag("x", { xmlns = "jabber:x:data", type = "submit" })
			:tag("field", { var = "FORM_TYPE" }):text_tag("value", xmlns_mam):up()
		if since then -- whatever number the client has sent
			since = math.floor(math.max(0, math.min(since, last_second)))
			iq:tag("field", { var = "start" }):text_tag("value", datetime.datetime(since)):up()
		end
		iq:up():tag("set", { xmlns = "http://jabber.org/protocol/rsm" })
			:text_tag("max", ("%d"):format(most)):text_tag("before", before or "")
		iq:reset()
		local wait, done = async.waiter()
		local text, reason
		relay.ask(iq, room.jid, asker, "", function (answer, why)
			text, reason = answer, why
			done()
		end)
		wait()
		if not text then return nil, reason end
		local page = stanzas.parse(text) or {}
		local fin = page[1] and page[#page]:get_child("fin", xmlns_mam)
		if not fin then return nil, "it refuses the query for the history" end
		local messages = {}
		for _, message in ipairs(page) do
			local result = message:get_child("result", xmlns_mam)
			local forwarded = result and result:get_child("forwarded", "urn:xmpp:forward:0")
			local original = forwarded and forwarded:get_child("message", "jabber:client")
			local delay = forwarded and forwarded:get_child("delay", "urn:xmpp:delay")
			if original and delay then
				table.insert(messages, { id = result.attr.id, stanza = original, stamp = delay.attr.stamp })
			end
		end
		return messages, fin.attr.complete == "true" or fin.attr.complete == "1"
	end

	-- What mod_muc_mam has archived and nobody has seen yet comes live.
	module:hook("muc-get-history", function (event)
		if mamlog.primary or not capture.can_wait() then return end
		local door = door_of(event.room)
		enter(door, true)
		leave(door, true)
	end, 2)

	module:hook("muc-get-history", function (event)
		local room, asker = event.room, event.to
		if not mamlog.primary or not is_archived(room) or not link.up or not capture.can_wait() then return end
		local length = room._data.history_length or default_history_length
		local most = math.floor(math.min(event.maxstanzas or math.huge, length, max_history_length))
		if most < 1 or event.maxchars == 0 or room._history and #room._history >= most then return end

		local door = door_of(room)
		enter(door, true)
		local found, before = {}, nil -- newest first
		local ok, failure = true, nil
		repeat
			local page, complete = fetch(room, asker, math.min(most - #found, most_results), event.since, before)
			if not page then
				ok, failure = false, complete
				break
			end
			for i = #page, 1, -1 do
				table.insert(found, page[i])
			end
			before = page[1] and page[1].id
		until complete or not before or #found >= most
		leave(door, true)
		if not ok then
			module:log("warn", "No history of %s from the archive: %s", room.jid, failure)
			return
		end

		local history, chars = {}, event.maxchars
		for _, message in ipairs(found) do
			local stanza = message.stanza
			stanzas.without_default(stanza)
			stanza.attr.to = asker
			stanza:add_direct_child(st.stanza("delay", { xmlns = "urn:xmpp:delay", from = room.jid, stamp = message.stamp }))
			stanza:add_direct_child(capture.stanza_id(room.jid, message.id))
			if chars then
				chars = chars - #tostring(stanza)
				if chars < 0 then break end
			end
			table.insert(history, stanza)
		end
		function event.next_stanza()
			return table.remove(history)
		end
		return true
	end, 1)

	module:hook("muc-room-destroyed", function (event)
		outbox.delete(event.room.jid)
	end, 1)

	module:hook("muc-disco#info", function (event)
		if mamlog.primary and link.up and is_archived(event.room) then
			for _, feature in ipairs(link.features) do
				event.reply:tag("feature", { var = feature }):up()
			end
		end
	end)

	-- Who may read a room's archive (XEP-0313 section 6.2). Returns the room, and whether
	-- all real JIDs may be shown; or nil and what is wrong.
	function rooms.may_read(jid, asker)
		local room = muc.get_room_from_jid(jid)
		if room == false then return nil, "wait", "resource-constraint" end
		if not room or room._data.destroyed then return nil, "cancel", "item-not-found" end
		local affiliation = room:get_affiliation(jid_bare(asker))
		local occupant = room:get_occupant_by_real_jid(asker)
		if affiliation == "outcast"
		or room:get_members_only() and not affiliation
		or room:get_password() and not affiliation and not occupant then
			return nil, "auth", "forbidden"
		end
		return room, affiliation == "owner" or affiliation == "admin" or occupant and occupant.role == "moderator"
	end

	return rooms
end

return { new = new }
