-- The link to mamlog: the session of its component, used in the name of this host.
-- It says hello, knows whether the archive can answer, and brings each request its
-- answer, or the reason why there is none.

local modulemanager = require "core.modulemanager"
local timer = require "util.timer"
local new_id = require "util.id".short
local monotonic = require "util.time".monotonic

local host, hosts = module.host, prosody.hosts
local escaped = (module:require "stanzas").escaped
local xmlns = "urn:mamlog:attach:1"

local hello_interval = 10
local retry_interval = 1 -- of a hello that nobody answered

-- callbacks: up(), down(reason), tick() once a second at least,
-- report() -> messages and bytes in the spool, last error
local function new(options, serves, callbacks)
	local component = options.component
	-- up: the archive can answer. session: the component's, while it is connected.
	local link = {
		up = false, session = nil, error = "no connection yet",
		features = {}, max_batch = 256, max_bytes = 262144, window = 4096,
	}
	local addresses = "' from='" .. host .. "' to='" .. component .. "'>"
	local pending, boot, serial = {}, new_id(), 0
	local greeting, next_hello = false, 0

	-- Sends a payload, whose text is in pieces[2] to pieces[n]; what is before and after it
	-- in pieces is overwritten. answer(payload) gets the child of the result, or nil, a
	-- reason, and the condition and type of the error if mamlog answered with one. There
	-- must be a session.
	function link.request(kind, pieces, n, answer)
		serial = serial + 1
		local id = boot .. serial
		pending[id] = { answer = answer, deadline = monotonic() + options.timeout }
		pieces[1], pieces[n + 1] = "<iq type='" .. kind .. "' id='" .. id .. addresses, "</iq>"
		link.session.send(table.concat(pieces, "", 1, n + 1))
		local conn = link.session.conn
		if conn.onwritable then
			conn:onwritable() -- now, and not when the event loop is through with all clients
		end
	end

	local function down(reason)
		link.error = reason
		if link.up then
			link.up = false
			module:log("warn", "The archive %s can't answer: %s", component, reason)
			callbacks.down(reason)
		end
	end

	local function welcomed(welcome)
		local attr = welcome.attr
		link.max_batch = tonumber(attr["max-batch"]) or link.max_batch
		link.max_bytes = tonumber(attr["max-bytes"]) or link.max_bytes
		link.window = tonumber(attr.window) or link.window
		local features = {}
		for feature in welcome:childtags("feature", xmlns) do
			features[#features + 1] = feature.attr.var
		end
		link.features, link.error = features, ""
		if not link.up then
			link.up = true
			module:log("info", "The archive %s answers (%s)", component, attr.software or "unknown software")
			callbacks.up()
		end
	end

	local function hello()
		local count, bytes, problem = callbacks.report()
		greeting, next_hello = true, monotonic() + hello_interval
		local text = "<hello xmlns='%s' versions='1' serves='%s' software='%s' spool='%d' spool-bytes='%d' error='%s'/>"
		text = text:format(xmlns, serves, escaped("Prosody " .. (prosody.version or "")), count, bytes, escaped(problem))
		link.request("get", { "", text }, 2, function (welcome, reason, condition)
			greeting = false
			if welcome and welcome.name == "welcome" and welcome.attr.version == "1" then
				return welcomed(welcome)
			end
			reason = reason or "it speaks another version of the protocol"
			if reason ~= link.error then
				module:log("error", "No welcome from %s: %s", component, reason)
			end
			next_hello = monotonic() + (condition and hello_interval or retry_interval)
			down(reason)
		end)
	end

	-- Takes the archive for away until it answers a hello again.
	function link.suspend(reason)
		next_hello = 0
		down(reason)
	end

	-- Writes what is queued for the component at once, each write on its own.
	local function attach(session)
		if link.session == session then return end
		link.session, greeting = session, false
		session.conn:setoption("tcp-nodelay", true)
		hello()
	end

	local function abandon(requests, reason)
		for _, request in pairs(requests) do
			request.answer(nil, reason)
		end
	end

	local function detach(session, reason)
		if link.session ~= session then return end
		link.session, greeting = nil, false
		local lost = pending
		pending = {}
		down(reason)
		-- The connection is still being taken apart.
		timer.add_task(0, function () abandon(lost, reason) end)
	end

	-- Nothing is sent any more, and all that was asked gets its answer.
	function link.close()
		local lost = pending
		link.session, pending = nil, {}
		down("the module is unloaded")
		abandon(lost, link.error)
	end

	local hooked -- the events of the component's host
	local function find_component()
		local there = hosts[component]
		if not there or there.events == hooked then return end
		hooked = there.events
		local context = module:context(component)
		context:hook("component-authenticated", function (event)
			attach(event.session)
		end)
		context:hook("component-disconnected", function (event)
			detach(event.session, "the component is not connected")
		end)
		local loaded = modulemanager.get_module(component, "component")
		local session = loaded and loaded.session
		if session and session.type == "component" then
			attach(session)
		end
	end

	-- To hook the events of a host before there is one would hook the server's.
	module:hook_global("host-activated", find_component)
	module:hook_global("server-started", function ()
		if not modulemanager.is_loaded(component, "component") then
			module:log("error", "mamlog_component = %q: the configuration has no such external component", component)
		end
	end)
	find_component()

	module:hook("iq/host", function (event)
		local stanza = event.stanza
		local kind = stanza.attr.type
		if event.origin ~= link.session or kind ~= "result" and kind ~= "error" then return end
		local id = stanza.attr.id
		local request = pending[id]
		if not request then return true end -- too late
		pending[id] = nil
		if kind == "result" then
			request.answer(stanza.tags[1] or stanza)
		else
			local error_type, condition, text = stanza:get_error()
			request.answer(nil, text or condition, condition, error_type)
		end
		return true
	end, 1000)

	local tick = math.min(1, options.timeout / 4)
	module:add_timer(tick, function ()
		local now = monotonic()
		local late = {}
		for id, request in pairs(pending) do
			if request.deadline < now then
				late[#late + 1] = request
				pending[id] = nil
			end
		end
		for _, request in ipairs(late) do
			request.answer(nil, "it did not answer in time")
		end
		if link.session and not greeting and now >= next_hello then
			hello()
		end
		callbacks.tick()
		return tick
	end)

	return link
end

return { new = new, xmlns = xmlns }
