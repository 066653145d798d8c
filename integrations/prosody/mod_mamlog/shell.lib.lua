-- The commands mamlog:status() and mamlog:import() of Prosody's shell.

local hosts = prosody.hosts

local function commands_of(host)
	local loaded = hosts[host] and hosts[host].modules.mamlog
	return loaded and loaded.commands
end

local function call(name, session, host)
	local commands = commands_of(host)
	if not commands then
		return nil, "mod_mamlog is not loaded on " .. tostring(host)
	end
	return commands[name](session.print)
end

if module.get_option_enum then -- Prosody 13
	for name, desc in pairs {
		status = "Show the state of the link to mamlog and of the spool",
		import = "Bring the archive of mod_mam or mod_muc_mam to mamlog",
	} do
		module:add_item("shell-command", {
			section = "mamlog", section_desc = "Commands for the archive in mamlog",
			name = name, desc = desc, args = { { name = "host", type = "string" } }, host_selector = "host",
			handler = function (self, host) return call(name, self.session, host) end,
		})
	end
else
	local env = module:shared("/*/admin_shell/env")
	env.mamlog = {
		status = function (self, host) return call("status", self.session, host) end,
		import = function (self, host) return call("import", self.session, host) end,
	}
end
