-- What Prosody gives its modules.
std = "lua51+lua54"
globals = { "module" }
read_globals = { "prosody" }
