package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

func main() {
	ctx := context.Background()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	event := map[string]string{
		"EventType": "RoomEnded",
		"EventTime": time.Now().UTC().Format(time.RFC3339Nano),
		"AppId":     "661e",
		"RoomId":    "room-1",
		"TaskId":    "audio",
	}
	body, err := json.Marshal(event)
	if err != nil {
		log.Fatal(err)
	}
	message := sqs.SendMessageInput{
		QueueUrl:    aws.String(os.Getenv("EVENT_QUEUE_URL")),
		MessageBody: aws.String(string(body)),
	}
	if _, err := sqs.NewFromConfig(cfg).SendMessage(ctx, &message); err != nil {
		log.Fatal(err)
	}
}
