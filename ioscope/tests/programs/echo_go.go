// Echo server on Go's netpoller.
//
// Usage: echo_go PORT REQUESTS
// Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

func main() {
	requests, err := strconv.ParseInt(os.Args[2], 10, 64)
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	left := requests
	done := make(chan struct{})
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go echo(connection, &left, done)
		}
	}()
	<-done
}

func echo(connection net.Conn, left *int64, done chan struct{}) {
	defer connection.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:n]); err != nil {
			return
		}
		lines := int64(bytes.Count(buffer[:n], []byte("\n")))
		if now := atomic.AddInt64(left, -lines); now <= 0 && now+lines > 0 {
			close(done)
			return
		}
	}
}
