package main

import (
	_ "embed"

	"github.com/spf13/cobra"
)

//go:embed sample.yaml
var sample []byte

func init() { commands = append(commands, initCmd) }

func initCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "init",
		Short:   "Write a short commented configuration to stdout",
		Example: "  ticketgate init > ticketgate.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := e.stdout.Write(sample)
			return err
		},
	}
}
