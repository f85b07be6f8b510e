package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ticketgate/internal/config"
)

// configFile is where packages put the configuration.
const configFile = "/etc/ticketgate/ticketgate.yaml"

func init() { commands = append(commands, configCmd) }

func configCmd(e *env) *cobra.Command {
	group := &cobra.Command{
		Use:   "config",
		Short: "Look at configuration files",
	}
	group.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration as serve would read it, environment included",
		Long: "Check reports every problem with its line and column, and exits with 3 if there is one.\n" +
			"Without FILE it checks " + configFile + ".",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := configFile
			if len(args) > 0 {
				file = args[0]
			}
			return checkConfig(e, file)
		},
	})
	return group
}

func checkConfig(e *env, file string) error {
	c, err := config.Load(file, e.environ, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s: ok: %s, %s, %s, store %s\n", file,
		count(len(c.Streams), "stream"), count(len(c.Plans), "plan"), count(len(c.Keys), "key"), c.Store.Kind)
	return err
}

// count is "no streams", "1 stream", "2 streams".
func count(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun + "s"
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
