package main

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newAuditCheckpointCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Sign the audit history as it is",
		Long: `Print a checkpoint: how many audit records each store has and the root of the Merkle
tree over them, signed as a note (golang.org/x/mod/sumdb/note). Keep it somewhere
else. A copy is in DATA_DIR/audit. Stores in memory are not in it.`,
		Example: "  mamlog audit checkpoint > 2026-11-27.note",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), offline{stores: true, audit: true}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.SignCheckpoint(cmd.Context(), request(&adminv1.SignCheckpointRequest{}))
				if err == nil {
					_, err = a.out.Write(res.Msg.GetCheckpoint())
				}
				return err
			})
		},
	}
}

func newAuditKeyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the public key that verifies checkpoints",
		Long: `Print the public key that verifies checkpoints and proofs: its name, its hash and the
Ed25519 key. The private one is in DATA_DIR/audit/key, which only its owner can read.`,
		Example: "  mamlog audit key > mamlog.pub",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), offline{}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.GetAuditKey(cmd.Context(), request(&adminv1.GetAuditKeyRequest{}))
				if err == nil {
					fmt.Fprintln(a.out, res.Msg.GetKey())
				}
				return err
			})
		},
	}
}
