package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newAuditProveCommand(a *app) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "prove [ID]",
		Short: "Prove that an event is in the history, or that the history has only grown",
		Long: `Print a proof, as JSON, that 'mamlog audit verify' checks with nothing but the
public key. With the ID of an event: that it is in the history that a new
checkpoint, which is part of the proof, signs. With --from and an older checkpoint:
that the history has only grown since then.

A proof of an event has its bytes as the log has them, with what lies apart of them
because it can be erased, but for what verifies a password. The field shown is for
people and proves nothing.`,
		Example: `  mamlog audit prove 01KB1Q5TZ5X7T9GJ2M6Q0V8D4R > event.json
  mamlog audit prove --from 2026-11-27.note > growth.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (from == "") {
				return errors.New("give either the ID of an event or --from with an older checkpoint")
			}
			var old []byte
			if from != "" {
				var err error
				if old, err = os.ReadFile(from); err != nil {
					return &failure{exitFailed, err}
				}
			}
			return a.withClient(cmd.Context(), offline{stores: true, audit: true}, func(c adminv1connect.AdminServiceClient) error {
				var proof []byte
				if old != nil {
					res, err := c.ProveConsistency(cmd.Context(), request(&adminv1.ProveConsistencyRequest{From: old}))
					if err != nil {
						return err
					}
					proof = res.Msg.GetProof()
				} else {
					res, err := c.ProveInclusion(cmd.Context(), request(&adminv1.ProveInclusionRequest{Id: args[0]}))
					if err != nil {
						return err
					}
					proof = res.Msg.GetProof()
				}
				var b bytes.Buffer
				if err := json.Indent(&b, proof, "", "  "); err != nil {
					return err
				}
				_, err := a.out.Write(escaped(append(b.Bytes(), '\n'), appendJSONEscape))
				return err
			})
		},
	}
	c.Flags().Var((*textFlag)(&from), "from", "prove that the history has only grown since the checkpoint in this `FILE`")
	c.MarkFlagFilename("from")
	return c
}
