-- The spool: what waits for the archive, on disk, in order.
--
-- It is a series of segments, files that are only ever appended to, NNNNNNNN.spool in
-- HOST/mamlog_spool of Prosody's data path. A segment is a series of records:
--
--   length of the payload in bytes, decimal; space; first 8 hex digits of its SHA-1; \n
--   payload
--   \n
--
-- What follows the last whole record of a segment was torn off by a crash and counts as
-- absent. The file "position" holds the number of a segment and an offset in it: all
-- before that is done with. It is not synced; what is sent again because it was lost is
-- recognised by its key.

local datamanager = require "util.datamanager"
local sha1 = require "util.hashes".sha1
local lfs = require "lfs"

local segment_size = 4 * 1024 * 1024

local has_posix, unistd = pcall(require, "posix.unistd")
local has_stdio, stdio = pcall(require, "posix.stdio")
local has_fcntl, fcntl = pcall(require, "posix.fcntl")
has_posix = has_posix and has_stdio and has_fcntl

local function quoted(path)
	return "'" .. path:gsub("'", "'\\''") .. "'"
end

-- Returns when the files are on disk, and the names of new ones in their directory.
local function sync(file, path, directory)
	if not has_posix then
		local ok = os.execute("exec sync -d " .. quoted(path) .. (directory and " " .. quoted(directory) or ""))
		if ok ~= true and ok ~= 0 then
			return nil, "sync -d " .. path .. " failed"
		end
		return true
	end
	local ok, err = unistd.fsync(stdio.fileno(file))
	if ok and directory then
		local fd
		fd, err = fcntl.open(directory, fcntl.O_RDONLY)
		if not fd then return nil, err end
		ok, err = unistd.fsync(fd)
		unistd.close(fd)
	end
	return ok, err
end

-- Tells whether anything can be synced here at all.
local function can_sync()
	local probe = prosody.paths.data
	return has_posix or sync(nil, probe)
end

-- Reads the record at the file's position. Returns its payload and its whole length; no
-- payload if that isn't what was written; and nil, nil and an error if there is none.
local function read_record(file)
	local header = file:read("*l")
	if not header then return nil end
	local length, sum = header:match("^(%d+) (%x+)$")
	length = tonumber(length)
	if not length then return nil, nil, "there is no record" end
	local payload = file:read(length)
	if not payload or #payload < length or file:read(1) ~= "\n" then
		return nil, nil, "the record is not whole"
	end
	if sha1(payload, true):sub(1, 8) ~= sum then payload = nil end
	return payload, #header + 1 + length + 1
end

local function is_append(payload)
	return payload:sub(1, 7) == "<append"
end

local function open(max)
	local directory = datamanager.getpath("x", module.host, "mamlog_spool", "spool"):match("^(.*)/[^/]*$")
	-- count, bytes: of all that is not done with. unread: records that were committed and
	-- not read. appends: those that were added and not read, and are appends. others: how
	-- many that are no appends are not done with, by what they are. error: what went wrong
	-- last.
	local spool = { count = 0, bytes = 0, unread = 0, appends = 0, others = {}, error = "" }
	local segments = {}        -- { number, path, size }; size is that of the whole records
	local writing              -- file of the last segment
	local reading, read_at     -- file of segments[read_segment], and where it stands
	local read_segment, read_offset = 1, 0
	local taken = {}           -- records that were read and are not done with:
	local first, last = 1, 0   -- taken[first] to taken[last]
	local done_offset = 0      -- in segments[1]
	local last_number = 0
	local added, added_bytes, added_appends, added_others = {}, 0, 0, {} -- not committed

	local function path_of(number)
		return ("%s/%08d.spool"):format(directory, number)
	end

	local function complain(what, err)
		spool.error = what .. ": " .. tostring(err)
		module:log("error", "Spool: %s", spool.error)
		return nil, spool.error
	end

	local function count_other(payload, n)
		n = (spool.others[payload] or 0) + n
		spool.others[payload] = n > 0 and n or nil
	end

	local function stop_reading()
		if reading then reading:close() end
		reading = nil
	end

	local function save_position()
		local path = directory .. "/position"
		local file, err = io.open(path .. "~", "w")
		if not file then return complain("position", err) end
		file:write(("%d %d\n"):format(segments[1].number, done_offset))
		if not file:close() or not os.rename(path .. "~", path) then
			complain("position", "it can't be written")
		end
	end

	local function clear()
		stop_reading()
		if writing then writing:close() end
		writing = nil
		for _, segment in ipairs(segments) do
			os.remove(segment.path)
		end
		os.remove(directory .. "/position")
		segments = {}
		taken, first, last = {}, 1, 0
		read_segment, read_offset, done_offset = 1, 0, 0
		spool.bytes, spool.appends, spool.others, spool.error = 0, 0, {}, ""
	end

	-- Puts a record behind all others. It is kept when commit returns.
	function spool.add(payload)
		if spool.bytes + #payload > max then
			return nil, "full"
		end
		added[#added + 1] = ("%d %s\n%s\n"):format(#payload, sha1(payload, true):sub(1, 8), payload)
		added_bytes = added_bytes + #payload
		if is_append(payload) then
			added_appends, spool.appends = added_appends + 1, spool.appends + 1
		else
			added_others[#added_others + 1] = payload
			count_other(payload, 1)
		end
		spool.count, spool.bytes = spool.count + 1, spool.bytes + #payload
		return true
	end

	local function write(data)
		local current, new_directory = segments[#segments], nil
		if not writing or current.size >= segment_size then
			if writing then writing:close() end
			last_number = last_number + 1
			current = { number = last_number, path = path_of(last_number), size = 0 }
			datamanager.getpath("x", module.host, "mamlog_spool", "spool", true) -- makes the directory
			local err
			writing, err = io.open(current.path, "ab")
			if not writing then return nil, err end
			segments[#segments + 1] = current
			new_directory = directory
		end
		local ok, err = writing:write(data)
		if ok then ok, err = writing:flush() end
		if ok then ok, err = sync(writing, current.path, new_directory) end
		if not ok then
			-- Whole records only: the next go into a new segment.
			writing:close()
			writing = nil
			return nil, err
		end
		current.size = current.size + #data
		return true
	end

	-- Writes and syncs what was added. If that fails, none of it is in the spool.
	function spool.commit()
		if not added[1] then return true end
		local data, records, bytes, appends, others = table.concat(added), #added, added_bytes, added_appends, added_others
		added, added_bytes, added_appends, added_others = {}, 0, 0, {}
		local ok, err = write(data)
		if not ok then
			for _, payload in ipairs(others) do count_other(payload, -1) end
			spool.count, spool.bytes, spool.appends = spool.count - records, spool.bytes - bytes, spool.appends - appends
			return complain("write", err)
		end
		spool.unread = spool.unread + records
		return true
	end

	-- The next records, at most so many and, from the second on, of so many bytes; one
	-- that is no append comes alone.
	function spool.read(max_records, max_bytes)
		local records, bytes = {}, 0
		while #records < max_records do
			local segment = segments[read_segment]
			if not segment then break end
			if read_offset >= segment.size then
				if not segments[read_segment + 1] then break end
				stop_reading()
				read_segment, read_offset = read_segment + 1, 0
			else
				if not reading then
					reading, read_at = io.open(segment.path, "rb"), 0
				end
				if reading and read_at ~= read_offset then
					reading:seek("set", read_offset)
				end
				local payload, length, err = nil, nil, "it can't be opened"
				if reading then payload, length, err = read_record(reading) end
				if not length then
					complain(segment.path .. " at byte " .. read_offset .. ", the rest of it is lost", err or "it is short")
					stop_reading()
					segment.size = read_offset
				elseif not payload then
					complain(segment.path .. " at byte " .. read_offset, "a record is damaged and lost")
					read_offset = read_offset + length
					read_at = read_offset
				else
					local alone = not is_append(payload)
					if records[1] and (alone or bytes + #payload > max_bytes) then
						read_at = nil
						break
					end
					read_offset = read_offset + length
					read_at = read_offset
					records[#records + 1], bytes = payload, bytes + #payload
					last = last + 1
					taken[last] = { segment = segment, offset = read_offset, size = #payload, append = not alone, other = alone and payload or nil }
					if alone then break end
					spool.appends = spool.appends - 1
				end
			end
		end
		spool.unread = spool.unread - #records
		if not records[1] and spool.unread > 0 then
			-- These were in what can't be read.
			spool.count, spool.unread, spool.appends, spool.others = spool.count - spool.unread, 0, added_appends, {}
			for _, payload in ipairs(added_others) do count_other(payload, 1) end
			for i = first, last do
				if taken[i].other then count_other(taken[i].other, 1) end
			end
			if spool.count == 0 then clear() end
		end
		return records
	end

	-- Lets the records that were read and are not done with be read again.
	function spool.rewind()
		stop_reading()
		spool.unread = spool.unread + last - first + 1
		for i = first, last do
			if taken[i].append then spool.appends = spool.appends + 1 end
		end
		taken, first, last = {}, 1, 0
		read_segment, read_offset = 1, done_offset
	end

	-- The n oldest of the records that were read are done with.
	function spool.ack(n)
		if n == 0 then return end
		local record
		for i = first, first + n - 1 do
			record, taken[i] = taken[i], nil
			spool.bytes = spool.bytes - record.size
			if record.other then count_other(record.other, -1) end
		end
		first = first + n
		spool.count = spool.count - n
		if spool.count == 0 then return clear() end
		while segments[1] ~= record.segment do
			os.remove(table.remove(segments, 1).path)
			read_segment = read_segment - 1
		end
		done_offset = record.offset
		save_position()
	end

	function spool.close()
		spool.commit()
		stop_reading()
		if writing then writing:close() end
		writing = nil
	end

	local function load()
		if lfs.attributes(directory, "mode") ~= "directory" then return end
		local numbers = {}
		for name in lfs.dir(directory) do
			local number = tonumber(name:match("^(%d+)%.spool$"))
			if number then numbers[#numbers + 1] = number end
		end
		table.sort(numbers)
		local position = io.open(directory .. "/position")
		local from, offset
		if position then
			from, offset = (position:read("*l") or ""):match("^(%d+) (%d+)$")
			position:close()
		end
		from, offset = tonumber(from) or 0, tonumber(offset) or 0
		last_number = math.max(from, numbers[#numbers] or 0)
		for _, number in ipairs(numbers) do
			local path = path_of(number)
			if number < from then
				os.remove(path)
			else
				local segment = { number = number, path = path, size = 0 }
				local file, err = io.open(path, "rb")
				if number == from then segment.size = offset end
				if file then
					file:seek("set", segment.size)
					repeat
						local payload, length
						payload, length, err = read_record(file)
						segment.size = segment.size + (length or 0)
						if payload then
							spool.count, spool.bytes = spool.count + 1, spool.bytes + #payload
							if is_append(payload) then
								spool.appends = spool.appends + 1
							else
								count_other(payload, 1)
							end
						end
					until not length
					file:close()
				end
				if err then -- of the last segment, a crash may have left that
					module:log(file and number == last_number and "info" or "error",
						"Spool: %s ends at byte %d: %s", path, segment.size, err)
				end
				segments[#segments + 1] = segment
			end
		end
		spool.unread = spool.count
		if segments[1] and segments[1].number == from then
			done_offset = offset
		end
		read_offset = done_offset
		if spool.count == 0 then
			clear()
		else
			module:log("info", "Spool: %d messages wait for the archive", spool.count)
		end
	end
	load()

	return spool
end

return { open = open, can_sync = can_sync }
