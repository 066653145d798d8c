-- What is to be archived, on its way: in batches to the archive while it answers, and
-- otherwise as mamlog_on_failure says. Order is kept: what is in the spool goes first.
--
-- An entry is a table with the strings head (an <append> start tag that lacks its end)
-- and stanza (the message), and optionally
--   twin       the entry before it, if it has the same stanza
--   more       true: another entry follows at once, so that it needs not be sent alone;
--              if none does, it goes with the next or within a second
--   must       true: it goes into the spool whatever mamlog_on_failure says
--   stamp      for what was archived before at another time
--   settled    called with the entry on its outcome
--   done       called after that
-- The outcome is finished = true with id, if it was archived and is durable, or with
-- failed = "bounce", if it must not be delivered. With neither it is delivered without
-- an id: it is in the spool, or not wanted by the archive, or lost with "pass".

local timer = require "util.timer"
local time_now = require "util.time".now
local xpcall = require "util.xpcall".xpcall
local escaped = (module:require "stanzas").escaped
local traceback = debug.traceback

local xmlns = "urn:mamlog:attach:1"
local batch_tag = "<batch xmlns='" .. xmlns .. "'>"

-- A batch goes when all is gathered that one turn of the event loop brings and the one
-- before the last is answered; sooner if it has so many appends. Then the archive and
-- this server work at the same time.
local live_flights = 2
local eager_batch = 16
local spool_flights = 16

-- Conditions of an append that may be tried again.
local passing = { ["!resource-constraint"] = true, ["!internal-server-error"] = true }

local function xep0082(time)
	local seconds = math.floor(time)
	return os.date("!%Y-%m-%dT%H:%M:%S", seconds) .. (".%03dZ"):format(math.floor((time - seconds) * 1000))
end

local function new(options, link, spool)
	local on_failure = options.on_failure
	local overhead = 256 + #module.host + #options.component -- bytes of a batch that are no append
	-- hold: nothing leaves the spool. archived: called with a record of the spool and
	-- its id.
	local outbox = { hold = false, archived = nil, in_flight = 0 }
	local open, open_bytes = {}, 0    -- entries of the next batch
	local flights, first, last = {}, 1, 0 -- flights[first] to flights[last] are unanswered
	local pieces = {}                 -- of the batch that is written
	local spooling = {}               -- entries that were added to the spool in this tick
	local commit_due, flush_due = false, false
	local gathering = false           -- who waited for an answer is about to append more
	local single = 0                  -- so many records of the spool go one by one
	local barrier                     -- a deletion, which overtakes nothing, and is overtaken by nothing
	local behind = {}                 -- by deletion: what is to be called when it is done
	local not_before = 0              -- when the spool may be tried again
	local pump, release

	local function finish(entry, id, failed)
		entry.finished, entry.id, entry.failed = true, id, failed
		if entry.settled then
			local ok, err = xpcall(entry.settled, traceback, entry)
			if not ok then module:log("error", "After archiving: %s", err) end
		end
		if entry.done then entry.done() end
	end

	local function commit()
		commit_due = false
		local ok = spool.commit()
		local entries = spooling
		spooling = {}
		for _, entry in ipairs(entries) do
			finish(entry, nil, not ok and "bounce" or nil)
		end
		if not ok then release() end
		pump()
	end

	local function commit_soon()
		if not commit_due then
			commit_due = true
			timer.add_task(0, commit)
		end
	end

	local function record_of(entry)
		return ("%s stamp='%s'>%s</append>"):format(entry.head, xep0082(entry.stamp or entry.time), entry.stanza)
	end

	-- What becomes of an entry that the archive can't take now.
	local function put_away(entry)
		if on_failure == "spool" or entry.must then
			local ok, err = spool.add(record_of(entry))
			if ok then
				spooling[#spooling + 1] = entry
				return commit_soon()
			end
			if spool.error ~= err then
				spool.error = err
				module:log("error", "The spool is %s: messages are given back to their senders", err)
			end
			return finish(entry, nil, "bounce")
		end
		finish(entry, nil, on_failure == "bounce" and "bounce" or nil)
	end

	-- What becomes of an entry that the archive will never take.
	local function reject(entry, why)
		module:log("warn", "The archive does not take a message: %s", why)
		finish(entry, nil, on_failure == "bounce" and not entry.must and "bounce" or nil)
	end

	local function settle_live(flight, words)
		for i, entry in ipairs(flight) do
			if passing[words[i]] then put_away(entry) end
		end
		-- The sender's side of a message is safe before it goes on with the recipient's.
		if spooling[1] then commit() end
		for i, entry in ipairs(flight) do
			local word = words[i]
			if word:sub(1, 1) ~= "!" then
				finish(entry, word ~= "-" and word or nil)
			elseif not passing[word] then
				reject(entry, word:sub(2))
			end
		end
	end

	-- Answers come in order, so a flight that is answered is the first.
	local function landed(flight)
		flights[first] = nil
		first = first + 1
		outbox.in_flight = outbox.in_flight - flight.size
	end

	-- The records that are in flight are read again; what is answered for them until
	-- then does not count.
	local function back_to_spool()
		for i = first, last do
			flights[i].again = true
		end
		spool.rewind()
		barrier = nil
	end

	local function settle_spooled(flight, words)
		local done = 0
		for i, word in ipairs(words) do
			if passing[word] then break end
			done = i
			if word:sub(1, 1) == "!" then
				module:log("error", "The archive does not take a message of the spool: %s", word:sub(2))
			elseif word ~= "-" and outbox.archived then
				outbox.archived(flight.records[i], word)
			end
		end
		spool.ack(done)
		if done < flight.size then
			back_to_spool()
			not_before = time_now() + 1
			timer.add_task(1, pump)
		elseif spool.count == 0 then
			module:log("info", "The spool is empty")
		end
		single = math.max(0, single - flight.size)
	end

	-- A batch was refused as a whole. Alone, its good ones will pass.
	local function refused(flight, reason)
		if not flight.records and flight.size == 1 then
			reject(flight[1], reason)
		elseif not flight.records then
			for i, entry in ipairs(flight) do
				entry.alone = true
				table.insert(open, i, entry)
				open_bytes = open_bytes + #entry.head + #entry.stanza
			end
		elseif flight.size == 1 and not flight.again then
			module:log("error", "The archive does not take a message of the spool: %s", reason)
			spool.ack(1)
		elseif not flight.again then
			back_to_spool()
			single = flight.size
		end
	end

	-- Handles an answer that concerns no single append: returns true if that was all.
	local function troubled(flight, payload, reason, condition, error_type)
		if flight.lost then return true end
		if not payload and (not condition or error_type == "wait" or error_type == "auth") then
			link.suspend(reason)
			return true
		elseif flight ~= flights[first] then
			link.suspend("its answers are out of order")
			return true
		end
	end

	local function answered(flight, payload, ...)
		if troubled(flight, payload, ...) then return end
		local words = {}
		if payload then
			for word in (payload:get_text() or ""):gmatch("%S+") do
				words[#words + 1] = word
			end
			if #words ~= flight.size then
				return link.suspend("it answered " .. #words .. " of " .. flight.size .. " messages")
			end
		end
		landed(flight)
		-- Who waited has the next message ready in this tick; they all go together.
		gathering = true
		if not payload then
			refused(flight, (...))
		elseif not flight.records then
			settle_live(flight, words)
		elseif not flight.again then
			settle_spooled(flight, words)
		end
		if open[1] then return outbox.flush_soon() end
		gathering = flush_due
		pump()
	end

	local function send(flight, text, n)
		last = last + 1
		flights[last] = flight
		outbox.in_flight = outbox.in_flight + flight.size
		link.request("set", text, n, function (...) return answered(flight, ...) end)
	end

	-- Calls what waited for deletions that are done.
	function release(all)
		for deletion, waiting in pairs(behind) do
			if all or not spool.others[deletion] then
				behind[deletion] = nil
				for _, call in ipairs(waiting) do call() end
			end
		end
	end

	-- All that is unanswered becomes of what it would without an archive; called when
	-- the link is down.
	function outbox.fail()
		local lost, from, to = flights, first, last
		flights, first, last, outbox.in_flight, barrier = {}, 1, 0, 0, nil
		spool.rewind()
		local entries = open
		open, open_bytes = {}, 0
		for i = from, to do
			lost[i].lost = true
			for _, entry in ipairs(lost[i]) do
				put_away(entry)
			end
		end
		for _, entry in ipairs(entries) do
			put_away(entry)
		end
		release(true)
	end

	local function send_deletion()
		local flight = { size = 0 }
		last = last + 1
		flights[last] = flight
		link.request("set", { "", barrier }, 2, function (payload, reason, ...)
			if troubled(flight, payload, reason, ...) then return end
			landed(flight)
			if not payload then
				module:log("error", "The archive does not delete what it should: %s", reason)
			end
			barrier = nil
			spool.ack(1)
			release()
			pump()
		end)
	end

	local function send_spooled()
		local room = math.min(link.max_batch, link.window - outbox.in_flight)
		local records = spool.read(single > 0 and 1 or room, link.max_bytes - overhead)
		if not records[1] then return release() end
		if records[1]:sub(1, 7) == "<append" then
			send({ records = records, size = #records }, { "", batch_tag, table.concat(records), "</batch>" }, 4)
		else
			barrier = records[1]
		end
	end

	local function send_live()
		local room = math.min(link.max_batch, link.window - outbox.in_flight, open[1].alone and 1 or #open)
		local flight, bytes, n, size = {}, overhead, 2, 0
		pieces[2] = batch_tag
		while size < room do
			local entry = open[size + 1]
			local head, stanza = entry.head, entry.stanza
			local same = size > 0 and entry.twin == flight[size]
			bytes = bytes + #head + (same and 0 or #stanza) + 20
			if size > 0 and bytes > link.max_bytes then break end
			pieces[n + 1] = head
			if same then
				pieces[n + 2], pieces[n + 3], pieces[n + 4] = " ref='", size, "'/>"
			else
				pieces[n + 2], pieces[n + 3], pieces[n + 4] = ">", stanza, "</append>"
			end
			n, size = n + 4, size + 1
			flight[size] = entry
		end
		if size == #open then
			open, open_bytes = {}, 0
		else
			local rest = {}
			for i = size + 1, #open do rest[i - size] = open[i] end
			open, open_bytes = rest, math.max(0, open_bytes - bytes + overhead)
		end
		flight.size = size
		pieces[n + 1] = "</batch>"
		send(flight, pieces, n + 1)
	end

	local function is_full()
		return #open >= eager_batch or open_bytes >= link.max_bytes
	end

	-- Sends what may be sent.
	function pump()
		while link.up and outbox.in_flight < link.window do
			local waiting = last - first + 1
			if barrier then
				if waiting > 0 then return end
				send_deletion()
			elseif spool.unread > 0 and not outbox.hold then
				if waiting >= spool_flights or time_now() < not_before then return end
				send_spooled()
			elseif open[1] and (waiting < live_flights or is_full()) then
				send_live()
			else
				return
			end
		end
	end
	outbox.pump = pump

	local function flush()
		flush_due, gathering = false, false
		pump()
	end

	function outbox.flush_soon()
		if not flush_due then
			flush_due = true
			timer.add_task(0, flush)
		end
	end

	-- Tells whether an entry would go to the archive now, with those before it.
	local function live(must)
		if not link.up then return false end
		return on_failure ~= "spool" and not must or spool.appends == 0 and not outbox.hold
	end

	-- Tells whether to append now is to wait for something.
	function outbox.waits()
		return on_failure == "spool" or live(false)
	end

	function outbox.append(entry)
		entry.time = time_now()
		local size = #entry.head + #entry.stanza
		if size + overhead > 2 * link.max_bytes then
			return reject(entry, "it is too large")
		elseif not live(entry.must) then
			return put_away(entry)
		end
		open[#open + 1], open_bytes = entry, open_bytes + size
		if entry.more then return end -- a timer would take as long as all the rest
		if first > last and not gathering or is_full() then
			pump() -- the link is idle, or the archive can begin
		elseif last - first + 1 < live_flights then
			outbox.flush_soon()
		end
	end

	-- Settles what waits for the spool.
	outbox.close = commit

	local function deletion_of(owner)
		return "<delete xmlns='" .. xmlns .. "' owner='" .. escaped(owner) .. "'/>"
	end

	-- Calls back when no deletion of the owner's archive is on its way, so that who has
	-- the name next finds nothing; or when the link is down.
	function outbox.behind_deletion(owner, call)
		local deletion = deletion_of(owner)
		if not spool.others[deletion] then return call() end
		behind[deletion] = behind[deletion] or {}
		table.insert(behind[deletion], call)
	end

	-- The owner's archive ends here. It goes through the spool: it must neither be
	-- forgotten nor change places with what comes before and after it.
	function outbox.delete(owner)
		while link.up and open[1] and outbox.in_flight < link.window do send_live() end
		local ok, err = spool.add(deletion_of(owner))
		if ok then return commit_soon() end
		module:log("error", "The archive of %s is not deleted: the spool is %s", owner, err)
	end

	return outbox
end

return { new = new, xep0082 = xep0082 }
