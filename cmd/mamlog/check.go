package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newCheckCommand(a *app) *cobra.Command {
	var store string
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare every row of the projections with the log",
		Long: `Fold the log anew, aside, and compare every row of the projections with what that
gives. It needs as much disk space as the projections have, for as long as it runs;
a running server goes on meanwhile. Where rows differ it prints the first hundred
differences and exits with 3; 'mamlog rebuild' makes them right.

It also holds the audit records of the log against the Merkle tree that was made of
them when they were written, and the tree against every checkpoint in
DATA_DIR/audit. Where these differ the log itself was changed, and it exits with 5:
don't rebuild, which would make the tree anew from the changed log, but compare
with a backup.`,
		Example: "  mamlog check\n  mamlog check --store archive",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.check(cmd.Context(), store)
		},
	}
	c.Flags().Var((*textFlag)(&store), "store", "only the store `NAME`: main, or an archive_store")
	c.RegisterFlagCompletionFunc("store", a.completeStore)
	return c
}

// check checks one store, or all if store is empty, and prints what it finds.
func (a *app) check(ctx context.Context, store string) error {
	return a.withClient(ctx, offline{stores: true, store: store}, func(c adminv1connect.AdminServiceClient) error {
		stream, err := c.Check(ctx, request(&adminv1.CheckRequest{Store: store}))
		if err != nil {
			return err
		}
		var p *progress
		differences, tampered := uint64(0), uint64(0)
		err = receive(stream, func(m *adminv1.CheckResponse) error {
			if p == nil {
				p = a.newProgress("check " + m.GetStore())
			}
			if !m.GetDone() {
				p.at(int(m.GetRecords()))
				return nil
			}
			p.done()
			p = nil
			differences += m.GetDifferences()
			tampered += m.GetTampered()
			a.printCheck(m)
			return nil
		})
		if err == nil && tampered > 0 {
			return &failure{exitTampered, fmt.Errorf("the audit records in the log are not those that were written: %d differences; don't rebuild, compare with a backup", tampered)}
		}
		if err == nil && differences > 0 {
			return &failure{exitDiffers, fmt.Errorf("%d rows differ from the log; 'mamlog rebuild' makes them anew from it", differences)}
		}
		return err
	})
}

func (a *app) printCheck(m *adminv1.CheckResponse) {
	if m.GetDifferences() == 0 {
		fmt.Fprintf(a.out, "%s: ok, %d rows agree with %d records\n", m.GetStore(), m.GetRows(), m.GetRecords())
		return
	}
	fmt.Fprintf(a.out, "%s: %d of %d rows differ from what %d records give\n", m.GetStore(), m.GetDifferences(), m.GetRows(), m.GetRecords())
	for _, p := range m.GetProblems() {
		fmt.Fprintf(a.out, "  %s\n", harmless(p))
	}
	if more := int(m.GetDifferences()) - len(m.GetProblems()); more > 0 {
		fmt.Fprintf(a.out, "  and %d more\n", more)
	}
}
