generate:
	protoc --go_out=. --go_opt=module=mamlog log/event.proto
