package demo

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// explain turns a failure to build the network into a message with a remedy.
func explain(err error) error {
	var busy lab.BusyError
	switch {
	case errors.As(err, &busy):
		return err
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this root may not make network namespaces (%w): run the demo on the host itself, or in a container started with --privileged", err)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("this kernel lacks bridges or virtual Ethernet (%w): load the modules with `modprobe bridge veth`", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: choose a folder that can be written with --run-dir", err)
	}
	return err
}

// checkKernel tests in one network namespace whether the kernel supports what capture needs: an nftables chain that
// redirects connections.
func checkKernel(namespace string) error {
	f, err := os.Open(lab.NetnsPath(namespace))
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", namespace, err)
	}
	defer f.Close()
	if err := tryNftables(netns.NsHandle(f.Fd())); err != nil {
		return fmt.Errorf("this kernel has no nftables with address translation (%w): load it with `modprobe -a nf_tables nft_chain_nat nft_redir`, or use a kernel built with CONFIG_NF_TABLES and CONFIG_NFT_REDIR", err)
	}
	return nil
}

func tryNftables(ns netns.NsHandle) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "isthmus-try"})
	conn.AddChain(&nftables.Chain{
		Name: "try", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	if err := conn.Flush(); err != nil {
		return err
	}
	conn.DelTable(table)
	return conn.Flush()
}
