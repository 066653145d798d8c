-- Makes mamlog the archive of this host (XEP-0313): of its accounts, if it is a
-- VirtualHost, or of its rooms, if it is a component with mod_muc. In the place of
-- mod_mam and mod_muc_mam. While one of those is loaded as well, this one only follows
-- it (README.md, migration).

local modulemanager = require "core.modulemanager"
local async = require "util.async"
local st = require "util.stanza"
local jid_bare = require "util.jid".bare
local jid_node = require "util.jid".node

local xmlns_mam = "urn:xmpp:mam:2"
local xmlns_trim = "urn:mamlog:trim:0"

local host, hosts = module.host, prosody.hosts
local is_component = module:get_host_type() == "component"
if is_component and not hosts[host].modules.muc then
	error("mod_mamlog belongs on a VirtualHost, or on a component whose module is \"muc\"", 0)
end

local function option(name, default, is_valid, what)
	local value = module:get_option(name)
	if value == nil then value = default end
	if not is_valid(value) then
		local shown = type(value) == "string" and ("%q"):format(value) or tostring(value)
		error(("%s = %s: it must be %s"):format(name, shown, what), 0)
	end
	return value
end

local reactions = { spool = true, bounce = true, pass = true }

local options = {
	component = option("mamlog_component", nil, function (v)
		return type(v) == "string" and v ~= "" and v ~= host
	end, "the domain of the Component that mamlog connects to"),
	on_failure = option("mamlog_on_failure", "spool", function (v)
		return reactions[v]
	end, 'one of "spool", "bounce" and "pass"'),
	timeout = option("mamlog_timeout", 5, function (v)
		return type(v) == "number" and v >= 0.1 and v <= 600
	end, "a number of seconds, from 0.1 to 600"),
	spool_max = option("mamlog_spool_max", 256 * 1024 * 1024, function (v)
		return type(v) == "number" and v >= 1024 * 1024
	end, "a number of bytes, at least 1048576"),
	keep_mam_store = option("mamlog_keep_mam_store", false, function (v)
		return type(v) == "boolean"
	end, "true or false"),
}

local spools = module:require "spool"
if options.on_failure == "spool" and not spools.can_sync() then
	error("the spool can't be synced to disk: it needs lua-posix for this Lua, or a sync command that knows -d; "
		.. "or set mamlog_on_failure to something else", 0)
end

local predecessor = is_component and "muc_mam" or "mam"
local old_name = is_component and "muc_log" or module:get_option_string("archive_store", "archive")
local old_store = module:open_store(old_name, "archive")
local state_store = module:open_store("mamlog")

-- primary: this module archives, stamps and answers. Otherwise the other one does.
local mamlog = { primary = false }

local spool = spools.open(options.spool_max)
local callbacks = { -- of the link
	report = function () return spool.count, spool.bytes, spool.error end,
}
local link = (module:require "link").new(options, is_component and "rooms" or "accounts", callbacks)
local outboxes = module:require "outbox"
local outbox = outboxes.new(options, link, spool)
local relay = (module:require "relay").new(link, outbox)
local capture = (module:require "capture").new(mamlog, outbox, function () return link.session end)
local import = (module:require "import").new(link, capture, old_store, is_component, outboxes.xep0082)

-- joined: mamlog's archives go on from those of the old store, or there was none to
-- begin with. Until then, what the other module archives waits in the spool.
local joined = (state_store:get(nil) or {}).joined

local function join()
	if joined then return end
	joined = true
	local ok, err = state_store:set(nil, { joined = true })
	if not ok then
		module:log("error", "That mamlog is the archive now can't be noted: %s", err)
	end
end

local function keep(user, stanza, id, when, with)
	when = math.floor(when) -- fractions are not for every Prosody
	local ok, err = old_store:append(user, id, stanza, when, with)
	local caps = old_store.caps
	if not ok and err == "quota-limit" and caps and caps.truncate and caps.quota then
		old_store:delete(user, { truncate = math.floor(caps.quota * 0.99) })
		ok, err = old_store:append(user, id, stanza, when, with)
	end
	return ok, err
end

-- Called for each message that was archived as primary.
function mamlog.archived(...)
	join()
	if not options.keep_mam_store then return end
	local called, ok, err = pcall(keep, ...)
	if not called or not ok then
		module:log("error", "A message could not be kept for mod_%s: %s", predecessor, err or ok)
	end
end

-- What was in the spool is kept for the other module when it is archived.
if options.keep_mam_store then
	local parse = (module:require "stanzas").parse
	local parse_time = require "util.datetime".parse
	function outbox.archived(record, id)
		local found = parse(record)
		local append = found and found[1]
		local message = append and append:get_child("message")
		if not message or append.attr.key:sub(1, 4) == "mam:" then return end
		local with = is_component and "message<groupchat" or jid_bare(append.attr.peer)
		mamlog.archived(jid_node(append.attr.owner), message, id, parse_time(append.attr.stamp), with)
	end
end

local rooms
if is_component then
	rooms = (module:require "rooms").new(mamlog, link, outbox, capture, relay)
else
	(module:require "accounts").new(mamlog, outbox, capture)
end

-- Features are announced while the archive can answer.
local announced = {}

local function announce()
	local wanted = {}
	for _, feature in ipairs(mamlog.primary and link.up and link.features or {}) do
		wanted[feature] = true
		if not announced[feature] then module:add_feature(feature) end
	end
	for feature in pairs(announced) do
		if not wanted[feature] then module:remove_item("feature", feature) end
	end
	announced = wanted
end

callbacks.up = function ()
	announce()
	outbox.pump()
end
callbacks.down = function ()
	announce()
	outbox.fail()
end
callbacks.tick = outbox.pump

module:hook("account-disco-info", function (event)
	local reply = event.reply or event.stanza
	for feature in pairs(announced) do
		reply:tag("feature", { var = feature }):up()
	end
end)

-- Queries, the form, preferences and metadata, and the end of a user's oldest messages.
for _, payload in ipairs { xmlns_mam .. ":query", xmlns_mam .. ":prefs", xmlns_mam .. ":metadata", xmlns_trim .. ":trim" } do
	local prefs = payload == xmlns_mam .. ":prefs"
	if is_component then
		module:hook("iq/bare/" .. payload, function (event)
			if not mamlog.primary then return end
			local origin, stanza = event.origin, event.stanza
			local room, all, condition = rooms.may_read(stanza.attr.to, stanza.attr.from)
			if room then
				relay.relay(origin, stanza, room.jid, all and " real-jids='all'" or " real-jids='own'")
			else
				origin.send(st.error_reply(stanza, all, condition))
			end
			return true
		end)
	else
		module:hook("iq/self/" .. payload, function (event)
			if not mamlog.primary then return end
			local origin, stanza = event.origin, event.stanza
			local owner = origin.username .. "@" .. host
			if prefs and stanza.attr.type == "set" and capture.can_wait() then
				-- They are for what the client sends after them.
				local wait, done = async.waiter()
				capture.will_wait(origin)
				relay.relay(origin, stanza, owner, "", done)
				wait()
				return true
			end
			if not prefs then origin.mam_requested = true end
			relay.relay(origin, stanza, owner, "")
			return true
		end)
		module:hook("iq/bare/" .. payload, function (event)
			if not mamlog.primary or event.to_self then return end
			event.origin.send(st.error_reply(event.stanza, "auth", "forbidden", "Only its owner may use an archive"))
			return true
		end)
	end
end

local function lead()
	if mamlog.primary then return end
	mamlog.primary, outbox.hold = true, false
	mamlog.lead()
	module:log("info", "mamlog is the archive of %s", host)
	announce()
	outbox.pump()
end

local function follow()
	mamlog.primary, outbox.hold = false, not joined
	mamlog.follow()
	module:log("info", "mod_%s archives, and mamlog %s", predecessor,
		joined and "follows it" or "waits for mamlog:import(\"" .. host .. "\")")
	announce()
end

module:hook("module-loaded", function (event)
	if event.module == predecessor then follow() end
end)
module:hook("module-unloaded", function (event)
	if event.module == predecessor then lead() end
end)
if modulemanager.is_loaded(host, predecessor) then follow() else lead() end

-- For the shell, which serves all hosts.
local commands = {}
module.environment.commands = commands

function commands.status(print)
	print(("%s: %s"):format(host, mamlog.primary and "mamlog is the archive"
		or joined and "mod_" .. predecessor .. " is the archive, mamlog follows it"
		or "mod_" .. predecessor .. " is the archive, the spool waits for an import"))
	print(("link: %s"):format(link.up and "up" or "down, " .. link.error))
	print(("in flight: %d"):format(outbox.in_flight))
	print(("spool: %d messages, %d bytes"):format(spool.count, spool.bytes))
	if spool.error ~= "" then print("spool: " .. spool.error) end
	return true, link.up and "The archive answers" or "The archive does not answer"
end

function commands.import(print)
	return import(print):next(function (sum)
		join()
		outbox.hold = false
		outbox.pump()
		return ("%d archives imported: %d messages, %d not wanted, %d refused; %d archives left alone")
			:format(sum.owners - sum.conflicts, sum.archived, sum.skipped, sum.refused, sum.conflicts)
	end)
end
module:require "shell"

function module.unload()
	mamlog.primary = false
	link.close()
	outbox.close()
	spool.close()
end
