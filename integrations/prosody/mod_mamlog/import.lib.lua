-- Brings what mod_mam or mod_muc_mam have archived to mamlog, oldest first, while they
-- go on archiving. What they add meanwhile is in the spool, under the same keys.

local async = require "util.async"
local promise = require "util.promise"
local jid_bare = require "util.jid".bare
local users_of = require "core.usermanager".users
local load_roster = require "core.rostermanager".load_roster
local st = require "util.stanza"

local is_second_copy = (module:require "stanzas").is_second_copy

local host = module.host
local xmlns = "urn:mamlog:attach:1"
local xmlns_muc_user = "http://jabber.org/protocol/muc#user"
local page_size = 5000    -- messages that are taken from the old store at once
local most_in_flight = 2  -- batches

local function new(link, capture, store, is_rooms, xep0082)
	local kind = is_rooms and "message<groupchat" or nil -- the rest of a room's are presences
	local running = false

	local function owners()
		local found = {}
		local iterator, state, first
		if store.users then
			iterator, state, first = store:users()
		elseif is_rooms then
			return nil, "its driver does not list the rooms"
		else
			iterator, state, first = users_of(host)
		end
		if not iterator then
			return not state and found or nil, state
		end
		for user in iterator, state, first do
			found[#found + 1] = user
		end
		table.sort(found)
		return found
	end

	-- The append of a message of the old archive; nil for the second copy of a note to
	-- oneself, which mod_mam archived twice.
	local function append_of(owner, id, stanza, when, state)
		local from, to = stanza.attr.from or owner, stanza.attr.to
		local dir, peer, more = "in", from, ""
		if is_rooms then
			dir = "room"
			local x = stanza:get_child("x", xmlns_muc_user)
			local item = x and x:get_child("item", xmlns_muc_user)
			if item and item.attr.jid then
				more = " whois='anyone' sender='" .. st.xml_escape(item.attr.jid) .. "'"
			end
			stanza:remove_children("x", xmlns_muc_user)
			stanza.attr.to = nil
		elseif jid_bare(from) == owner then
			dir, peer = "out", to or owner
		end
		stanza = capture.without_ids(stanza)
		stanza.attr.xmlns = nil
		if dir == "out" and jid_bare(peer) == owner and is_second_copy(state.notes, owner, stanza) then
			return nil
		end
		if not is_rooms and state.roster[jid_bare(peer)] then
			more = " contact='true'"
		end
		more = more .. (" import='true' stamp='%s'>"):format(xep0082(when))
		return capture.head(dir, owner, peer, more, "mam:" .. id) .. capture.serialize(stanza) .. "</append>"
	end

	local function import(print)
		local sum = { owners = 0, archived = 0, skipped = 0, refused = 0, conflicts = 0 }
		local in_flight, failure = 0, nil
		local wake

		local function wait_for_room(most)
			while in_flight > most and not failure do
				local wait, done = async.waiter()
				wake = done
				wait()
			end
		end

		local function answered(state, size, payload, reason)
			in_flight = in_flight - 1
			local answers = 0
			for word in (payload and payload:get_text() or ""):gmatch("%S+") do
				answers = answers + 1
				if word == "-" then
					sum.skipped = sum.skipped + 1
				elseif word == "!conflict" then
					state.conflict = true
				elseif word == "!resource-constraint" or word == "!internal-server-error" then
					failure = "the archive says " .. word:sub(2)
				elseif word:sub(1, 1) == "!" then
					sum.refused = sum.refused + 1
				else
					sum.archived = sum.archived + 1
				end
			end
			if answers ~= size then
				failure = reason or "not all messages were answered"
			end
			if wake then
				local done = wake
				wake = nil
				done()
			end
		end

		local function send(state, appends, size)
			if size == 0 or failure then return end
			if not link.up then
				failure = link.error
				return
			end
			in_flight = in_flight + 1
			local text = { "", "<batch xmlns='" .. xmlns .. "'>", table.concat(appends), "</batch>" }
			link.request("set", text, 4, function (payload, reason) answered(state, size, payload, reason) end)
			wait_for_room(most_in_flight - 1)
		end

		local function import_owner(user)
			local owner = user .. "@" .. host
			local state = { notes = {}, roster = not is_rooms and load_roster(user, host) or {} }
			local after
			repeat
				local messages, err = store:find(user, { limit = page_size, after = after, with = kind })
				if not messages then return nil, err end
				local count, appends, bytes = 0, {}, 0
				for id, stanza, when in messages do
					count, after = count + 1, id
					if not st.is_stanza(stanza) then stanza = st.deserialize(stanza) end
					local append = append_of(owner, id, stanza, when, state)
					if append then
						if #appends == link.max_batch or appends[1] and bytes + #append > link.max_bytes - 4096 then
							send(state, appends, #appends)
							if failure then return nil, failure end
							appends, bytes = {}, 0
						end
						appends[#appends + 1], bytes = append, bytes + #append
					end
				end
				send(state, appends, #appends)
			until count < page_size or failure or state.conflict
			wait_for_room(0)
			if failure then return nil, failure end
			sum.owners = sum.owners + 1
			if state.conflict then
				sum.conflicts = sum.conflicts + 1
				print(owner .. ": not imported, mamlog has messages already that are newer and were not imported")
			end
			return true
		end

		local users, err = owners()
		if not users then return nil, "the old archive can't be read: " .. tostring(err) end
		for i, user in ipairs(users) do
			local ok, problem = import_owner(user)
			if not ok then
				return nil, ("%s@%s: %s; run the import again, what it has brought is not brought twice")
					:format(user, host, tostring(problem))
			end
			if i % 100 == 0 then
				print(("%d of %d archives, %d messages"):format(i, #users, sum.archived))
			end
		end
		return sum
	end

	-- Returns a promise of a summary, a table of numbers. It may be started again after
	-- a failure.
	return function (print)
		return promise.new(function (resolve, reject)
			if running then return reject("an import is under way already") end
			if not link.up then return reject("the archive can't answer: " .. link.error) end
			if not store or not store.find then return reject("the old store is no archive") end
			running = true
			async.runner(function ()
				local sum, err = import(print)
				running = false
				if sum then resolve(sum) else reject(err) end
			end, {
				error = function (_, err)
					running = false
					module:log("error", "Import: %s", err)
					reject("an error, see the log")
				end,
			}):run(true)
		end)
	end
end

return { new = new }
