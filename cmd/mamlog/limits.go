package main

import (
	"mamlog/attach/c2s"
	"mamlog/cmd/mamlog/config"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// clientLimits are the configured limits that hold for connections of clients.
func clientLimits(l config.Limits) c2s.Limits {
	return c2s.Limits{
		Stanza:      stanza.Limits{Bytes: int(l.StanzaSize), Depth: l.StanzaDepth, Attrs: l.StanzaAttributes},
		Connections: l.Connections, Strangers: l.LoggingIn,
		LoginTimeout: l.LoginTimeout, Logins: l.LoginAttempts, FailedLogins: l.FailedLoginsRate,
		Queries: l.UserQueries, QueueBytes: int(l.ClientQueue),
	}
}

// archiveLimits are those that hold for requests to archives, however they come.
func archiveLimits(l config.Limits) xep0313.Limits {
	return xep0313.Limits{IDs: l.QueryIDs, FormFields: l.FormFields, PreferenceJIDs: l.PreferenceJIDs, QueueBytes: l.AppendQueue}
}
