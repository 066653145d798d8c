-- Messages of accounts, as mod_mam captures them: what a client sends at pre-message,
-- what comes for an account at message, both before mod_carbons and mod_offline.

local jid_bare = require "util.jid".bare
local jid_resource = require "util.jid".resource
local jid_split = require "util.jid".split
local load_roster = require "core.rostermanager".load_roster
local user_exists = require "core.usermanager".user_exists
local time_now = require "util.time".now

local is_second_copy = (module:require "stanzas").is_second_copy

local host = module.host
local bare_sessions = prosody.bare_sessions
local xmlns_hints = "urn:xmpp:hints"

-- Nobody wants to read again what has nothing but these. Of the rest, the archive
-- decides.
local fleeting = {
	["http://jabber.org/protocol/chatstates"] = true,
	["urn:xmpp:sid:0"] = true,
}
local fleeting_hints = { ["no-copy"] = true }

local function is_fleeting(child, stanza_xmlns)
	local xmlns = child.attr.xmlns
	return fleeting[xmlns] or xmlns == xmlns_hints and fleeting_hints[child.name]
		or xmlns == stanza_xmlns and child.name == "thread"
end

local function should_store(stanza)
	local kind = stanza.attr.type
	if kind == "groupchat" or kind == "headline" then return false, kind end
	if kind == "error" and not (stanza.attr.to and jid_resource(stanza.attr.to)) then
		return false, "bounce"
	end
	local found = false
	for _, child in ipairs(stanza.tags) do
		if child.attr.xmlns == xmlns_hints and (child.name == "no-store" or child.name == "no-permanent-store") then
			return false, "hint"
		end
		found = found or not is_fleeting(child, stanza.attr.xmlns)
	end
	return found, found and "content" or "default"
end

local function new(mamlog, outbox, capture)
	module:hook("archive-should-store", function (event)
		if not mamlog.primary then return end
		local should, why = should_store(event.stanza)
		event.reason = why
		return should
	end, -1)

	local events = prosody.hosts[host].events

	-- Other modules may decide otherwise, as they do for mod_mam.
	local function wanted(stanza, origin)
		local kind = stanza.attr.type
		if kind == "groupchat" or kind == "headline" then return false end
		if #events.get_handlers("archive-should-store") == 1 then
			return (should_store(stanza))
		end
		return module:fire_event("archive-should-store", { stanza = stanza, session = origin })
	end

	local function in_roster(user, owner, who)
		local online = bare_sessions[owner]
		local roster = online and online.roster or load_roster(user, host)
		return roster and roster[who] and " contact='true'" or ""
	end

	-- All that is known of a message that was captured, for when it is archived.
	local function new_entry(dir, origin, stanza, user, owner, peer, with)
		return {
			head = capture.head(dir, owner, peer, in_roster(user, owner, with)),
			stanza = nil, twin = nil, more = nil, time = nil, settled = nil, done = nil,
			finished = false, id = nil, failed = nil,
			origin = origin, source = stanza, user = user, with = with,
		}
	end

	-- What mod_mam tells others, push notifications among them.
	local function archived(entry)
		if not entry.id then return end
		mamlog.archived(entry.user, entry.source, entry.id, entry.time, entry.with)
		if events.get_handlers("archive-message-added") then
			module:fire_event("archive-message-added", {
				origin = entry.origin, stanza = entry.source, for_user = entry.user, id = entry.id,
			})
		end
	end

	local function carbons_wanted(origin, owner)
		local account = bare_sessions[owner]
		for _, session in pairs(account and account.sessions or {}) do
			if session ~= origin and session.want_carbons then return true end
		end
		return false
	end

	local function body_of(stanza)
		local body = stanza:get_child("body")
		return body and body[1]
	end

	-- Tells whether it is what was sent, and nobody has changed it since.
	local function is_same(sent, stanza)
		return sent and sent.source == stanza and #stanza == sent.children and body_of(stanza) == sent.body
	end

	-- Waits. Returns true if the message is not to be delivered.
	local function settle(event, entry)
		if capture.can_wait() then
			capture.will_wait(entry.origin)
			capture.wait(entry)
		end
		local sent = event.mamlog_sent
		if entry.failed or sent and sent.failed then
			return capture.bounce(entry.origin, entry.source)
		end
		archived(entry)
	end

	local function on_sent(event)
		if not event.mamlog_leads then return end
		local origin, stanza = event.origin, capture.without_ids(event.stanza)
		event.stanza = stanza
		if stanza.attr.type == "error" or not wanted(stanza, origin) then return end
		local user = origin.username
		local owner = user .. "@" .. host
		local peer = stanza.attr.to or owner
		local peer_user, peer_host = jid_split(peer)
		local with = peer_user and peer_user .. "@" .. peer_host or peer_host
		local entry = new_entry("out", origin, stanza, user, owner, peer, with)
		entry.stanza = capture.serialize(stanza)
		entry.note, entry.owner = with == owner, owner
		event.mamlog_sent = entry
		-- Nobody sees the sender's id but their own other resources. If it isn't wanted,
		-- it is enough to wait for the recipient's, which comes after it.
		if peer_host == host and peer_user and not entry.note and not carbons_wanted(origin, owner)
		and (bare_sessions[with] or user_exists(peer_user, host)) then
			entry.children, entry.body = #stanza, body_of(stanza)
			entry.more, entry.settled = true, archived
			outbox.append(entry)
			return
		end
		outbox.append(entry)
		if settle(event, entry) then return true end
		if entry.id then event.stanza = capture.with_id(stanza, owner, entry.id) end
	end

	local function on_received(event)
		if not event.mamlog_leads then return end
		local origin, stanza = event.origin, capture.without_ids(event.stanza)
		event.stanza = stanza
		local to, from = stanza.attr.to, stanza.attr.from
		local user = origin.username
		if to then user = jid_split(to) end
		if not user then return end
		local owner = user .. "@" .. host
		local sent = event.mamlog_sent
		if sent and sent.note then -- archived once
			if sent.id then event.stanza = capture.with_id(stanza, owner, sent.id) end
			return
		end
		local same = is_same(sent, stanza)
		if not ((same or wanted(stanza, origin)) and (bare_sessions[owner] or user_exists(user, host))) then
			-- Not delivered before what was sent is safe.
			if sent and not sent.finished and capture.can_wait() then
				capture.will_wait(origin)
				outbox.pump() -- nothing follows it after all
				capture.wait(sent)
			end
			return sent and sent.failed and capture.bounce(origin, stanza) or nil
		end
		local with = sent and sent.owner or from and jid_bare(from) or owner
		local dir, peer = "in", from
		if with == owner then
			if event.mamlog_followed then return end
			dir, peer = "out", to or owner
		end
		local entry = new_entry(dir, origin, stanza, user, owner, peer, with)
		if same then
			entry.stanza, entry.twin = sent.stanza, sent
		else
			entry.stanza = capture.serialize(stanza)
		end
		outbox.append(entry)
		if settle(event, entry) then return true end
		if not entry.id then return end
		if same then -- this is all that will ever be sent of it
			stanza:add_direct_child(capture.stanza_id(owner, entry.id))
		else
			event.stanza = capture.with_id(stanza, owner, entry.id)
		end
	end

	local before = capture.before_message(function (stanza)
		return mamlog.primary and wanted(stanza)
	end)
	module:hook("message/bare", before, 1000)
	module:hook("message/full", before, 1000)

	for _, address in ipairs { "bare", "full", "host" } do
		module:hook("pre-message/" .. address, capture.decide, 1000)
		module:hook("pre-message/" .. address, on_sent, 0)
		-- No id of the sender's archive leaves the server.
		module:hook("pre-message/" .. address, function (event)
			if mamlog.primary then event.stanza = capture.without_ids(event.stanza) end
		end, -1)
	end
	module:hook("message/bare", on_received, 0)
	module:hook("message/full", on_received, 0)

	-- Without mod_offline, what is archived is not undeliverable.
	module:hook("message/offline/handle", function (event)
		local owner = event.username .. "@" .. host
		if mamlog.primary and event.stanza:get_child_with_attr("stanza-id", "urn:xmpp:sid:0", "by", owner) then
			return true
		end
	end, -2)

	-- A client that has asked the archive has had its offline messages.
	module:hook("message/offline/broadcast", function (event)
		if mamlog.primary and event.origin.mam_requested then return true end
	end)

	module:hook_global("user-deleted", function (event)
		if event.host == host then outbox.delete(event.username .. "@" .. host) end
	end)

	-- While mod_mam archives, what it has archived follows.
	local notes = {}

	local function follow(event)
		local stanza, user = event.stanza, event.for_user
		local owner = user .. "@" .. host
		local from, to = stanza.attr.from or owner, stanza.attr.to
		local with, dir, peer = jid_bare(from), "in", from
		if with == owner then
			dir, peer = "out", to or owner
			with = jid_bare(peer)
		end
		if with == owner and is_second_copy(notes, owner, stanza) then return end
		local entry = {
			head = capture.head(dir, owner, peer, in_roster(user, owner, with), "mam:" .. event.id),
			stanza = capture.serialize(stanza), must = true, stamp = time_now(),
		}
		outbox.append(entry)
		if capture.can_wait() then
			capture.will_wait(event.origin)
			capture.wait(entry)
		end
	end

	function mamlog.lead()
		module:unhook("archive-message-added", follow)
	end

	function mamlog.follow()
		module:hook("archive-message-added", follow)
	end
end

return { new = new }
