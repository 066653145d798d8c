-- The commands mamlog:status(HOST) and mamlog:import(HOST) of Prosody's shell. One table
-- serves all hosts: on components there is nothing that would take commands of their own.

local hosts = prosody.hosts

local function call(name, session, host)
	local loaded = hosts[host] and hosts[host].modules.mamlog
	if not loaded then
		return nil, "mod_mamlog is not loaded on " .. tostring(host)
	end
	return loaded.commands[name](session.print)
end

local args = { { name = "host", type = "string" } }

-- The description is what Prosody 13 shows, and finds commands by; 0.12 passes it over.
module:shared("/*/admin_shell/env").mamlog = setmetatable({
	status = function (self, host) return call("status", self.session, host) end,
	import = function (self, host) return call("import", self.session, host) end,
}, {
	help = {
		desc = "Commands for the archive in mamlog",
		commands = {
			status = { desc = "Show the state of the link to mamlog and of the spool", args = args, module = "mamlog" },
			import = { desc = "Bring the archive of mod_mam or mod_muc_mam to mamlog", args = args, module = "mamlog" },
		},
	},
})
