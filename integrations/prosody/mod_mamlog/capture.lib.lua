-- What capturing messages of accounts and of rooms has in common: entries for the
-- outbox, waiting for their outcome, and stanza-ids.

local async = require "util.async"
local st = require "util.stanza"
local jid_prep = require "util.jid".prep
local jid_split = require "util.jid".split
local new_id = require "util.id".medium

local stanzas = module:require "stanzas"

local host = module.host
local escaped, is_ready = stanzas.escaped, async.ready
local xmlns_sid = "urn:xmpp:sid:0"

local function new(mamlog, outbox, archive_session)
	local capture = { serialize = stanzas.serialize, can_wait = is_ready }
	local boot, serial = new_id() .. "-", 0

	-- The head of an entry. more: attributes that are written already. Without a key it
	-- gets a new one.
	function capture.head(dir, owner, peer, more, key)
		if not key then
			serial = serial + 1
			return "<append dir='" .. dir .. "' owner='" .. escaped(owner) .. "' peer='" .. escaped(peer)
				.. "' key='" .. boot .. serial .. "'" .. more
		end
		return "<append dir='" .. dir .. "' owner='" .. escaped(owner) .. "' peer='" .. escaped(peer)
			.. "' key='" .. escaped(key) .. "'" .. more
	end

	-- The stanza without stanza-ids that claim to be from this host.
	function capture.without_ids(stanza)
		if not stanza:get_child("stanza-id", xmlns_sid) then return stanza end
		return st.clone(stanza):maptags(function (tag)
			if tag.name == "stanza-id" and tag.attr.xmlns == xmlns_sid then
				local _, by_host = jid_split(jid_prep(tag.attr.by))
				if by_host == host then return nil end
			end
			return tag
		end)
	end

	function capture.stanza_id(owner, id)
		local attr = { xmlns = xmlns_sid, by = owner, id = id }
		return setmetatable({ name = "stanza-id", attr = attr, tags = {} }, st.stanza_mt)
	end

	-- A copy with the id. The children are shared; what else the stanza is sent as
	-- must not have it.
	function capture.with_id(stanza, owner, id)
		local copy = st.clone(stanza, true)
		local tags = copy.tags
		for i = 1, #stanza do
			local child = stanza[i]
			copy[i] = child
			if child.name then tags[#tags + 1] = child end
		end
		copy:add_direct_child(capture.stanza_id(owner, id))
		return copy
	end

	-- Waits for the outcome of an entry. The caller runs in a runner.
	function capture.wait(entry)
		if entry.finished then return end
		local wait
		wait, entry.done = async.waiter()
		wait()
	end

	-- After a wait, net.server's resume() waits until the socket is readable, and what
	-- LuaSocket has read already stays where it is. Ending a pause looks at that too.
	local function resume_and_read(conn)
		conn.resume = nil -- uncovers the method
		local result = conn:resume()
		local socket = conn.conn
		if socket and socket.dirty and not conn._pausefor and socket:dirty() then
			conn:pausefor(0)
		end
		return result
	end

	-- To be called for the origin of the runner in which something waits.
	local function will_wait(origin)
		local conn = origin.conn
		if type(conn) == "table" and conn.pausefor and rawget(conn, "resume") == nil then
			conn.resume = resume_and_read
		end
	end

	capture.will_wait = will_wait

	-- Stanzas of components and of this server itself don't come in a runner, in which
	-- one can wait. They get one for each origin, which then goes through the router.
	local runners = setmetatable({}, { __mode = "k" })

	local function runner_for(origin)
		local runner = runners[origin]
		if runner then return runner end
		runner = async.runner(function (item)
			if st.is_stanza(item) then
				return prosody.core_post_stanza(origin, item)
			end
			item()
		end, {
			waiting = function ()
				if origin.conn then
					will_wait(origin)
					origin.conn:pause()
				end
			end,
			ready = function ()
				if origin.conn then origin.conn:resume() end
			end,
			error = function (_, err)
				module:log("error", "A stanza of %s: %s", origin.host or origin.type, err)
			end,
		})
		runners[origin] = runner
		return runner
	end

	local function is_busy(origin)
		local runner = runners[origin]
		return runner and (runner.state ~= "ready" or runner.queue[1] ~= nil)
	end

	-- Does what must be able to wait: in the runner of an origin, if this is none.
	function capture.defer(origin, work)
		runner_for(origin):run(work)
	end

	-- Says who archives, for all handlers of an event: the other module may be unloaded
	-- while one of them waits. To be hooked before all others.
	local function decide(event)
		-- Also: whether the other one had it when it was sent.
		event.mamlog_followed = event.mamlog_leads == false
		event.mamlog_leads = mamlog.primary
	end
	capture.decide = decide

	-- The same, where the stanza may come outside of a runner. wants(stanza) tells of a
	-- message whether it may have to wait.
	function capture.before_message(wants)
		return function (event)
			local origin, stanza = event.origin, event.stanza
			if is_ready() then
				will_wait(origin)
			elseif origin ~= archive_session() and (is_busy(origin) or outbox.waits() and wants(stanza)) then
				runner_for(origin):run(st.clone(stanza))
				return true
			end
			decide(event)
		end
	end

	-- Keeps the other stanzas of a component behind its messages.
	local function keep_order(event)
		local origin = event.origin
		if origin.type == "component" and origin ~= archive_session() and is_busy(origin) and not is_ready() then
			runner_for(origin):run(st.clone(event.stanza))
			return true
		end
	end
	for _, kind in ipairs { "iq", "presence" } do
		for _, address in ipairs { "bare", "full", "host" } do
			module:hook(kind .. "/" .. address, keep_order, 1000)
		end
	end
	module:hook("message/host", keep_order, 1000)

	-- Gives a message back to its sender.
	function capture.bounce(origin, stanza)
		if stanza.attr.type ~= "error" and origin.send then
			origin.send(st.error_reply(stanza, "wait", "resource-constraint",
				"The message could not be archived, and was not delivered; try again later"))
		end
		return true
	end

	return capture
end

return { new = new }
