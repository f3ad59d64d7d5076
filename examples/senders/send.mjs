import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

const event = {
  EventType: "RoomEnded",
  EventTime: new Date().toISOString(),
  AppId: "661e",
  RoomId: "room-1",
  TaskId: "audio",
};
const message = { QueueUrl: process.env.EVENT_QUEUE_URL, MessageBody: JSON.stringify(event) };
await new SQSClient().send(new SendMessageCommand(message));
