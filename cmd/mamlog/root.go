package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"mamlog/cmd/mamlog/config"
)

func newRootCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "mamlog",
		Short: "Message archives for XMPP, kept as a log of events",
		Long: `mamlog keeps the message archives (XEP-0313) of an XMPP service as an append-only
log of events, and answers history and preference queries from it.

Commands that read or change data speak to the running server through its admin
socket (DATA_DIR/admin.sock unless the configuration says otherwise). Where no
server runs they open the stores themselves. A relative data_dir counts from the
working directory, for the server as for the commands.

Times are shown in UTC. They are given as RFC 3339 (2026-11-22T20:27:03Z) or as a
date (2026-11-22).

Exit codes:
  0  done
  1  failed
  2  called in a wrong way
  3  check found rows that differ from the log
  4  there is no such user
  5  the audit history is not what it was, or not what a file says`,
		Example: `  mamlog serve --demo
  mamlog serve --config /etc/mamlog.yaml
  echo "$PASSWORD" | mamlog user add juliet@test.example
  mamlog query juliet@test.example --last 20
  mamlog prefs history juliet@test.example`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	file := os.Getenv("MAMLOG_CONFIG")
	if file == "" {
		file = "mamlog.yaml"
	}
	c.PersistentFlags().StringVar(&a.configFile, "config", file, "configuration `FILE`; $MAMLOG_CONFIG sets another default")
	c.MarkPersistentFlagFilename("config", "yaml", "yml")
	c.AddGroup(&cobra.Group{ID: "server", Title: "Server:"}, &cobra.Group{ID: "users", Title: "Users and their archives:"}, &cobra.Group{ID: "stores", Title: "Stores:"})
	c.SetHelpCommandGroupID("server")
	c.SetCompletionCommandGroupID("server")
	for group, commands := range map[string][]*cobra.Command{
		"server": {newServeCommand(a), newLinksCommand(a), newConfigCommand(a), newVersionCommand(a)},
		"users":  {newUserCommand(a), newQueryCommand(a), newPrefsCommand(a), newWhyCommand(a), newPolicyCommand(a), newRetentionCommand(a), newEraseCommand(a)},
		"stores": {newRebuildCommand(a), newCheckCommand(a), newExpireCommand(a), newBackupCommand(a), newRestoreCommand(a), newClockCommand(a), newAuditCommand(a)},
	} {
		for _, sub := range commands {
			sub.GroupID = group
			c.AddCommand(sub)
		}
	}
	return c
}

// parent makes a command that only holds others.
func parent(c *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.AddCommand(subs...)
	return c
}

// loadConfig reads the configuration file that the command line names.
func (a *app) loadConfig() (*config.Config, error) {
	c, err := config.Load(a.configFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no configuration file %s\n--config names another, 'mamlog config --help' tells what stands in one, and 'mamlog serve --demo' writes its own", a.configFile)
	}
	if err != nil {
		return nil, &failure{exitFailed, err}
	}
	return c, nil
}
