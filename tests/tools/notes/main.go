// Reads checkpoints and proofs by Go's own libraries of signed notes and transparent logs, which know nothing of
// moveout: notes FILE KEY...; KEY is a verifier of a signed note.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const proofHeader = "c2sp.org/tlog-proof@v1\n"

type said struct {
	Origin  string `json:"origin"`
	Size    int64  `json:"size"`
	Hash    string `json:"hash"`
	Rest    string `json:"rest"`
	Signers int    `json:"signers"`
	Unknown int    `json:"unknown"`
	Record  string `json:"record"`
	Index   int64  `json:"index"`
}

func main() {
	found, err := read(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(found)
}

func read(file string, keys []string) (*said, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text, isProof := strings.CutPrefix(string(data), proofHeader)
	if !isProof {
		return readCheckpoint(text, keys)
	}
	head, checkpoint, _ := strings.Cut(text, "\n\n")
	found, err := readCheckpoint(checkpoint, keys)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(head, "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "extra ") || !strings.HasPrefix(lines[1], "index ") {
		return nil, fmt.Errorf("a proof without its lines extra and index")
	}
	record, err := base64.StdEncoding.Strict().DecodeString(lines[0][6:])
	if err != nil {
		return nil, err
	}
	index, err := strconv.ParseInt(lines[1][6:], 10, 64)
	if err != nil {
		return nil, err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		path = append(path, hash)
	}
	root, err := tlog.ParseHash(found.Hash)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(path, found.Size, root, index, tlog.RecordHash(record)); err != nil {
		return nil, err
	}
	found.Record, found.Index = string(record), index
	return found, nil
}

func readCheckpoint(text string, keys []string) (*said, error) {
	var verifiers []note.Verifier
	for _, key := range keys {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open([]byte(text), note.VerifierList(verifiers...))
	if err != nil {
		return nil, err
	}
	lines := strings.SplitN(opened.Text, "\n", 4)
	if len(lines) != 4 {
		return nil, fmt.Errorf("no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return nil, err
	}
	return &said{
		Origin: lines[0], Size: size, Hash: lines[2], Rest: lines[3],
		Signers: len(opened.Sigs), Unknown: len(opened.UnverifiedSigs),
	}, nil
}
