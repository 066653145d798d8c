-- What clients ask of their archives, passed on to mamlog, and its answers.

local st = require "util.stanza"
local stanzas = module:require "stanzas"

local xmlns = "urn:mamlog:attach:1"
local escaped, serialize = stanzas.escaped, stanzas.serialize

local function new(link, outbox)
	local relay = {}

	-- Passes an iq on; answer gets the stanzas as text, or nil and a reason.
	function relay.ask(iq, owner, asker, more, answer)
		if not link.up then
			return answer(nil, link.error)
		end
		outbox.behind_deletion(owner, function ()
			if not link.up then
				return answer(nil, link.error)
			end
			local head = ("<query xmlns='%s' owner='%s' asker='%s'%s>"):format(xmlns, escaped(owner), escaped(asker), more)
			link.request("get", { "", head, serialize(iq), "</query>" }, 4, function (page, reason)
				answer(page and page.name == "page" and page:get_text(), reason or "it did not answer with a page")
			end)
		end)
	end

	-- Only where nobody wants to see stanzas may they be written as they are: smacks
	-- counts them, CSI delays them, a WebSocket frames them one by one.
	local function takes_text(session)
		local filters = session.filters
		local out = filters and filters["stanzas/out"]
		return session.type == "c2s" and session.conn and filters and not (out and out[1]) and not session.smacks
	end

	local function deliver(session, text)
		if takes_text(session) then
			return session.send(text)
		end
		local page, err = stanzas.parse(text)
		if not page then
			return module:log("error", "The archive's answer is not well-formed: %s", err)
		end
		for _, stanza in ipairs(page) do
			session.send(stanza)
		end
	end

	-- The archive works on several queries at once; a session hears the answers in the
	-- order in which it asked.
	local asked = setmetatable({}, { __mode = "k" }) -- by session: queries, the oldest first

	local function deliver_all(session, full_jid)
		local queries = asked[session]
		while queries[1] and queries[1].answered do
			local query = table.remove(queries, 1)
			-- An asker who is gone hears nothing.
			if session.send and not session.destroyed and session.full_jid == full_jid then
				if query.text then
					deliver(session, query.text)
				else
					module:log("debug", "A query could not be answered: %s", query.reason)
					session.send(st.error_reply(query.iq, "wait", "remote-server-timeout",
						"The archive can't be reached now; try again later"))
				end
			end
		end
	end

	-- Relays what a session asks. answered, if given, is called when it has its answer.
	function relay.relay(session, iq, owner, more, answered)
		local queries = asked[session] or {}
		asked[session] = queries
		local query, full_jid = { iq = iq }, session.full_jid
		table.insert(queries, query)
		relay.ask(iq, owner, iq.attr.from, more, function (text, reason)
			query.answered, query.text, query.reason = true, text, reason
			deliver_all(session, full_jid)
			if answered then answered() end
		end)
	end

	return relay
end

return { new = new }
